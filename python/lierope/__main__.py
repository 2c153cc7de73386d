"""`python -m lierope`: the command line, also under torchrun."""

from lierope.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
