"""The command line's work: training runs, their reports, inspection and the short benchmark."""
