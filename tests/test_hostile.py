"""Hostile calls: nothing is touched before a check, sizes past 63 bits, foreign tensors, pages."""

import importlib
import re
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import lierope
from cases import CASES, OpCase, normal, outputs
from error_cases import MODULES, OPS, Wrong, names
from lierope import ops

ROOT = Path(__file__).resolve().parents[1]
EVERY = [w for group in OPS.values() for w in group]


def huge(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """One number seen from everywhere: as many elements as you like in four bytes."""
    return torch.zeros(1, dtype=dtype).expand(shape)


@pytest.mark.parametrize("wrong", [w for group in MODULES.values() for w in group], ids=str)
def test_a_wrong_call_of_a_module_is_told_so(wrong: Wrong) -> None:
    with pytest.raises(Exception, match="^" + re.escape(wrong.text) + "$") as caught:
        eval(wrong.call, names())
    assert type(caught.value).__name__ == wrong.error


@pytest.mark.parametrize("wrong", EVERY, ids=str)
def test_every_message_is_one_line_with_rule_and_fact(wrong: Wrong) -> None:
    assert re.match(r"^(\w+): .* must .*, got .+$", wrong.text)


def test_the_page_of_errors_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    errors_table = importlib.import_module("tools.errors_table")
    assert errors_table.PAGE.read_text() == errors_table.page(), "run python -m tools.errors_table"


def test_every_public_operator_is_on_the_page() -> None:
    assert set(OPS) == set(ops.__all__)


# Arguments that could not be copied, though they can be named: 2^42 tokens, matrices, positions.
MANY = 1 << 42
UNTOUCHED = [
    (lambda: ops.cayley_rotate(huge(MANY, 4, 5, 8), normal(3, 8, 8)), "got float64"),
    (lambda: ops.cayley_rotate(huge(MANY, 4, 5, 8), huge(3, 8, 8)), "multiple of the heads"),
    (lambda: ops.lie_rotations(huge(2, 4, 1, 27), huge(MANY, 5, 2)), "got 27"),
    (lambda: ops.lie_rotations(huge(2, 4, MANY, 28), huge(5, 3)), "got 3"),
    (lambda: ops.lie_rotate(*[huge(2, 4, 5, 8)] * 2, huge(2, 4, MANY, 28), huge(5, 2)), "G*b ="),
    (lambda: ops.rotate_pairs(*[huge(MANY, 4, 5, 8)] * 2, huge(4, 4, 4)), "cover the 5 tokens"),
    (lambda: ops.rotate_pairs(*[huge(2, 4, 5, 8)] * 2, huge(4, 5, MANY)), "at most head_dim/2"),
    (lambda: ops.rotate_blocks(*[huge(2, 4, 5, 8)] * 2, huge(4, 5, MANY, 4, 4)), "G*b ="),
    (lambda: ops.rotate_circulant(*[huge(MANY, 4, 5, 8)] * 2, huge(4, 5, 4), 8), "got 4"),
    (lambda: ops.expm_skew(huge(MANY, 4, 5)), "must have shape (..., n, n)"),
    (lambda: ops.cayley(huge(MANY, 4, 4, dtype=torch.int32)), "must be float32 or float64"),
]


@pytest.mark.parametrize(("call", "part"), UNTOUCHED, ids=[part for _, part in UNTOUCHED])
def test_checks_come_before_memory_is_touched(call: Any, part: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(part)):
        call()


PAST_MEMORY = [
    ("expm_skew", lambda n: (huge(n, 4, 4),)),
    ("cayley", lambda n: (huge(n, 4, 4),)),
    ("cayley_rotate", lambda n: (huge(n, 1, 4, 4), huge(1, 4, 4))),
    ("lie_rotations", lambda n: (huge(2, 1, 1, 6), huge(n, 2))),
    ("lie_rotate", lambda n: (*[huge(n, 1, 1, 4)] * 2, huge(2, 1, 1, 6), huge(1, 2))),
    ("rotate_pairs", lambda n: (*[huge(n, 1, 1, 4)] * 2, huge(1, 1, 2))),
    ("rotate_blocks", lambda n: (*[huge(n, 1, 1, 4)] * 2, huge(1, 1, 1, 4, 4))),
    ("rotate_circulant", lambda n: (*[huge(n, 1, 1, 4)] * 2, huge(1, 1, 1), 4)),
]


@pytest.mark.parametrize("bits", [44, 54, 58])
@pytest.mark.parametrize(("op", "inputs"), PAST_MEMORY, ids=[op for op, _ in PAST_MEMORY])
def test_more_than_memory_or_63_bits_of_bytes(op: str, inputs: Any, bits: int) -> None:
    """From 2^46 elements, which no memory holds, to 2^62, whose bytes no int64 counts."""
    with pytest.raises(RuntimeError) as caught:
        getattr(ops, op)(*inputs(1 << bits))
    assert re.match(
        rf"^{op}: out of memory for a tensor of float32 and shape \(", str(caught.value)
    )


def test_sizes_of_nothing_whose_product_passes_63_bits() -> None:
    nothing = torch.empty(0).as_strided((0, 1 << 40, 1 << 40, 3, 3), (0, 0, 0, 0, 0))
    assert ops.expm_skew(nothing[:, :1, :1]).shape == (0, 1, 1, 3, 3)
    with pytest.raises(RuntimeError, match="expm_skew: out of memory for a tensor of float32 and"):
        ops.expm_skew(nothing)
    points = nothing[..., 0]
    assert ops.lie_rotations(huge(3, 1, 1, 6), points[:, 0, :5]).shape == (0, 1, 5, 1, 4, 4)


@pytest.mark.parametrize(("op", "inputs"), PAST_MEMORY, ids=[op for op, _ in PAST_MEMORY])
def test_fake_kernels_count_in_64_bits(op: str, inputs: Any) -> None:
    arguments = inputs(1 << 33)
    sizes = [max(x.shape) for x in arguments if isinstance(x, torch.Tensor)]
    with FakeTensorMode() as fake:
        fakes = [fake.from_tensor(x) if isinstance(x, torch.Tensor) else x for x in arguments]
        results = outputs(getattr(ops, op)(*fakes))
    assert max(sizes) == 1 << 33
    assert all(1 << 33 in y.shape and y.numel() >= 1 << 33 for y in results)


# Tensors that are not what they seem.


@pytest.mark.parametrize("case", CASES, ids=str)
def test_views_that_overlap_expand_or_negate(case: OpCase) -> None:
    """Windows over the same numbers, one number everywhere, and a lazy minus, are read as such."""
    inputs = case.inputs(torch.float64)
    for i, x in enumerate(inputs):
        steps = [1 + 2 * d for d in range(x.dim())][::-1]
        last = sum((n - 1) * step for n, step in zip(x.shape, steps, strict=True))
        numbers = normal(last + 1, seed=i) / 4
        window = numbers.as_strided(x.shape, steps)
        for view in (window, numbers[:1].expand(x.shape), torch._neg_view(window)):
            copy = view.clone(memory_format=torch.contiguous_format).resolve_neg()
            before = numbers.clone()
            got = outputs(case.function(*inputs[:i], view, *inputs[i + 1 :]))
            expected = outputs(case.function(*inputs[:i], copy, *inputs[i + 1 :]))
            assert torch.equal(numbers, before)
            for y, e in zip(got, expected, strict=True):
                torch.testing.assert_close(y, e, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_parameters_views_of_leaves_and_inference_tensors(case: OpCase) -> None:
    inputs = case.inputs(torch.float32)
    expected = outputs(case.function(*inputs))
    with torch.inference_mode():
        kept = [x.clone() for x in inputs]
        results = outputs(case.function(*kept))
    for y, e in zip(results, expected, strict=True):
        torch.testing.assert_close(y, e, rtol=2e-6, atol=2e-6)
    frozen = [torch.nn.Parameter(x.clone(), requires_grad=False) for x in inputs]
    assert not any(y.requires_grad for y in outputs(case.function(*frozen)))
    for result in outputs(case.function(*(x.clone().requires_grad_() for x in inputs))):
        assert result.requires_grad
        assert result.grad_fn is not None


def test_a_quantized_tensor_is_one_line() -> None:
    with pytest.warns(UserWarning, match="quantize_per_tensor"):
        quantized = torch.quantize_per_tensor(torch.zeros(3, 3), 0.1, 0, torch.qint8)
    with pytest.raises(NotImplementedError) as caught:
        ops.expm_skew(quantized)
    text = str(caught.value)
    assert text.startswith("expm_skew: tensors must be dense and on a CPU or CUDA, got the backend")
    assert "\n" not in text


def test_a_refused_call_leaves_results_and_threads_alone() -> None:
    """After each wrong call a right one gives what it gave before, in this thread and another."""
    q, angles = normal(2, 4, 5, 8, dtype=torch.float32), normal(4, 5, 4, dtype=torch.float32)
    expected = ops.rotate_pairs(q, q, angles)[0]
    known, seen = names(), []
    for wrong in EVERY:
        with pytest.raises((RuntimeError, TypeError, ValueError)):
            eval(wrong.call, known)
        assert torch.equal(ops.rotate_pairs(q, q, angles)[0], expected)
    thread = threading.Thread(target=lambda: seen.append(ops.rotate_pairs(q, q, angles)[0]))
    thread.start()
    thread.join(30)
    assert torch.equal(seen[0], expected)


def test_an_encoding_that_was_refused_has_not_changed() -> None:
    torch.manual_seed(0)
    known = names()
    liere: Any = known["liere"]
    good = (known["q"], known["k"], known["p"], 1)
    before, state = liere(*good), {k: v.clone() for k, v in liere.state_dict().items()}
    for wrong in MODULES["Calling an encoding"]:
        with pytest.raises((TypeError, ValueError)):
            eval(wrong.call, known)
    assert all(torch.equal(a, b) for a, b in zip(liere(*good), before, strict=True))
    assert all(torch.equal(v, state[k]) for k, v in liere.state_dict().items())
    assert isinstance(liere, lierope.LieRE)
