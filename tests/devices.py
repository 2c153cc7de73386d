"""The devices of this machine that torch can use."""

import torch

DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
