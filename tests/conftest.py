"""Settings of every test: few threads, since tests run side by side."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from devices import DEVICES

torch.set_num_threads(1)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Every device of this machine: cpu and, where torch has one, cuda."""
    name: str = request.param
    return name
