"""Every check of an operator speaks: the operator, the argument, the rule and what came."""

import re
from typing import Any

import pytest
import torch

from cases import normal
from error_cases import OPS, Wrong, names

# Operators as they lie below the public functions, and their gradients.
BELOW = [
    (
        "torch.ops.lierope.expm_skew(t(129, 129))",
        "expm_skew: n must be at most 128 (lierope.ops.expm_skew takes larger ones), got 129",
    ),
    (
        "torch.ops.lierope.expm_skew_backward(t(3, 3), t(2, 2))",
        "expm_skew_backward: grad must have the shape of a, (3, 3), got (2, 2)",
    ),
    (
        "torch.ops.lierope.expm_skew_backward(t(3, 3), t(3, 3, dtype=F64))",
        "expm_skew_backward: grad must have the dtype of a, float32, got float64",
    ),
    (
        "torch.ops.lierope.lie_rotations(t(2, 1, 1, 8256), P)",
        "lie_rotations: generators must have blocks of at most 128 features "
        "(lierope.ops takes larger ones), got 8256 entries a block",
    ),
    (
        "torch.ops.lierope.rotate_circulant(Q, Q, t(4, 5, 3), 7, 0, False)",
        "rotate_circulant: block_size must be one that the library's FFT holds "
        "(lierope.ops.rotate_circulant takes every size), got 7",
    ),
    (
        "torch.ops.lierope.rotate_pairs_backward(t(2, 4, 5, 6), Q, Q, Q, t(4, 5, 4), 0, True)",
        "rotate_pairs_backward: q_grad must have the shape of q, (2, 4, 5, 8), got (2, 4, 5, 6)",
    ),
    (
        "torch.ops.lierope.lie_rotations_backward(G, P, t(2, 2), True)",
        "lie_rotations_backward: grad must have the shape of the rotations, got (2, 2)",
    ),
]


def _here(text: str, device: str) -> str:
    """The text, which was written down on a CPU, with the device of the tensors."""
    return text.replace(", cpu, got meta", f", {normal(1).to(device).device}, got meta")


def _refused(call: str, text: str, known: dict[str, Any]) -> BaseException:
    with pytest.raises(Exception, match="^" + re.escape(text) + "$") as caught:
        eval(call, known)
    return caught.value


@pytest.mark.parametrize("wrong", [w for group in OPS.values() for w in group], ids=str)
def test_error(wrong: Wrong, device: str) -> None:
    error = _refused(wrong.call, _here(wrong.text, device), names(device))
    assert type(error).__name__ == wrong.error


@pytest.mark.parametrize(("call", "text"), BELOW, ids=[text[:60] for _, text in BELOW])
def test_error_below(call: str, text: str, device: str) -> None:
    assert isinstance(_refused(call, text, names(device)), RuntimeError)


DENSE = [
    w
    for group in OPS.values()
    for w in group
    if "to_sparse" not in w.call and 'to("meta")' not in w.call
]


@pytest.mark.parametrize("wrong", DENSE, ids=str)
def test_fake_tensors_are_told_the_same(wrong: Wrong) -> None:
    """Fake kernels stand for the real ones while a compiler traces."""
    known = names("meta") | {"torch": _OnMeta()}
    assert type(_refused(wrong.call, wrong.text, known)).__name__ == wrong.error


class _OnMeta:
    """`torch` whose `tensor` lies on the meta device."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def tensor(value: float) -> torch.Tensor:
        return torch.tensor(value, device="meta")
