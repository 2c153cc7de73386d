"""Settings of every test: few threads, since tests run side by side, and no interference from the caller's environment."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402 (reads the variable above)

torch.set_num_threads(1)
