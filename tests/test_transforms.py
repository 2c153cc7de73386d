"""Operators under PyTorch's transforms: opcheck, compile, export, torch.func, autocast."""

import pytest
import torch

from cases import CASES, OpCase, everywhere, normal, outputs
from lierope import ops

ONE_EACH = list({(c.registered or c.name): c for c in CASES}.values())
OPERATORS = [c for c in ONE_EACH if c.registered]


def _scalar(case: OpCase, *inputs: torch.Tensor) -> torch.Tensor:
    return sum((y.sin().sum() for y in outputs(case.function(*inputs))), torch.zeros(()))


class _Record(torch.utils._python_dispatch.TorchDispatchMode):
    """Collects the calls of lierope's operators."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, tuple] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if function.namespace == "lierope":
            self.calls[function.name().split("::")[1]] = (function, args)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", everywhere(OPERATORS), ids=str)
def test_opcheck(case: OpCase) -> None:
    inputs = [x.clone().requires_grad_() for x in case.inputs(torch.float64)]
    with _Record() as record:
        _scalar(case, *inputs).backward()
    assert set(case.registered) <= set(record.calls)
    for name in case.registered:
        function, args = record.calls[name]
        args = [a.detach() if isinstance(a, torch.Tensor) else a for a in args]
        torch.library.opcheck(function, tuple(args))
        args = [a.clone().requires_grad_() if isinstance(a, torch.Tensor) else a for a in args]
        torch.library.opcheck(function, tuple(args))


def test_every_operator_of_the_library_is_checked() -> None:
    listed = {
        s.name.split("::")[1]
        for s in torch._C._jit_get_all_schemas()
        if s.name.startswith("lierope::")
    }
    assert listed == {name for case in CASES for name in case.registered}


@pytest.mark.parametrize("case", everywhere(ONE_EACH), ids=str)
def test_compile_is_one_graph_with_the_same_gradients(case: OpCase) -> None:
    torch._dynamo.reset()
    inputs = [x.clone().requires_grad_() for x in case.inputs(torch.float32)]
    compiled = torch.compile(lambda *a: _scalar(case, *a), fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(_scalar(case, *inputs), inputs)
    for g, e in zip(torch.autograd.grad(compiled(*inputs), inputs), expected, strict=True):
        torch.testing.assert_close(g, e)


@pytest.mark.parametrize("case", everywhere(OPERATORS), ids=str)
def test_export(case: OpCase) -> None:
    class Model(torch.nn.Module):
        def forward(self, *args: torch.Tensor):  # type: ignore[no-untyped-def]
            return case.function(*args)

    inputs = case.inputs(torch.float32)
    program = torch.export.export(Model(), inputs)
    targets = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert any(f"lierope.{case.registered[0]}" in t for t in targets)
    for y, e in zip(
        outputs(program.module()(*inputs)), outputs(case.function(*inputs)), strict=True
    ):
        assert torch.equal(y, e)


@pytest.mark.parametrize("case", everywhere(ONE_EACH), ids=str)
def test_vmap_is_a_loop_over_samples(case: OpCase) -> None:
    inputs = case.inputs(torch.float64)
    for batched in range(len(inputs)):
        stacked = [torch.stack((x, 2 * x)) if i == batched else x for i, x in enumerate(inputs)]
        dims = tuple(0 if i == batched else None for i in range(len(inputs)))
        got = outputs(torch.vmap(case.function, dims)(*stacked))
        for s in range(2):
            args = [x[s] if i == batched else x for i, x in enumerate(stacked)]
            for y, e in zip(got, outputs(case.function(*args)), strict=True):
                torch.testing.assert_close(y[s], e)


@pytest.mark.parametrize("case", everywhere(ONE_EACH), ids=str)
def test_func_grad_and_jvp_agree_with_autograd(case: OpCase) -> None:
    inputs = tuple(x.clone() for x in case.inputs(torch.float64))
    every = tuple(range(len(inputs)))
    leaves = [x.clone().requires_grad_() for x in inputs]
    expected = torch.autograd.grad(_scalar(case, *leaves), leaves)
    got = torch.func.grad(lambda *a: _scalar(case, *a), every)(*inputs)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e)
    tangents = tuple(torch.ones_like(x) for x in inputs)
    _, slope = torch.func.jvp(lambda *a: _scalar(case, *a), inputs, tangents)
    torch.testing.assert_close(slope, sum(e.sum() for e in expected))


@pytest.mark.parametrize("op", [ops.expm_skew, ops.cayley])
def test_hessian_is_symmetric(op, device: str) -> None:  # type: ignore[no-untyped-def]
    hessian = torch.func.hessian(lambda a: op(a).sin().sum())(normal(3, 3).to(device))
    hessian = hessian.reshape(9, 9)
    torch.testing.assert_close(hessian, hessian.mT)
    assert hessian.abs().max() > 0.1


def test_vmap_of_grad_gives_gradients_per_sample(device: str) -> None:
    a = normal(4, 3, 3).to(device)
    loss = lambda x: ops.expm_skew(x).sin().sum()  # noqa: E731
    got = torch.vmap(torch.func.grad(loss))(a)
    for i in range(4):
        torch.testing.assert_close(got[i], torch.func.grad(loss)(a[i]))


@pytest.mark.parametrize("case", everywhere(ONE_EACH), ids=str)
def test_autocast_computes_rotations_in_single_precision(case: OpCase) -> None:
    inputs = case.inputs(torch.float32)
    with torch.autocast(inputs[0].device.type, torch.bfloat16):
        results = outputs(case.function(*inputs))
    for y, e in zip(results, outputs(case.function(*inputs)), strict=True):
        assert torch.equal(y, e)
