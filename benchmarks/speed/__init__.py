"""Speed of operators and training steps beside their peers: `python -m benchmarks.speed`."""
