"""What only CUDA has: graphs, streams, no waiting for the device, devices that do not match."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from cases import CASES, KERNELS, OpCase, normal, outputs
from lierope import ops
from lierope.encodings import create

if not torch.cuda.is_available():
    pytest.skip("needs a GPU that torch can use", allow_module_level=True)

CUDA = torch.device("cuda")
ON_CUDA = [case.on("cuda") for case in CASES]
KERNELS_ON_CUDA = [case.on("cuda") for case in KERNELS]
GIGABYTE = 1 << 30


def leaves_of(case: OpCase) -> list[Tensor]:
    return [x.detach().clone().requires_grad_() for x in case.inputs(torch.float32)]


def forward_and_backward(case: OpCase, leaves: list[Tensor]) -> list[Tensor]:
    results = outputs(case.function(*leaves))
    grads = torch.autograd.grad(results, leaves, [torch.ones_like(y) for y in results])
    return [*(y.detach() for y in results), *grads]


def assert_same(case: OpCase, found: list[Tensor], expected: list[Tensor]) -> None:
    """To the bit where our kernels do all the work; cuBLAS may choose another order of sums."""
    exact = any(name.endswith("_backward") for name in case.registered)
    for x, e in zip(found, expected, strict=True):
        if exact:
            assert torch.equal(x, e)
        else:
            torch.testing.assert_close(x, e)


@pytest.mark.parametrize("case", KERNELS_ON_CUDA, ids=str)
def test_a_graph_replays_forward_and_backward(case: OpCase) -> None:
    leaves = leaves_of(case)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            forward_and_backward(case, leaves)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = forward_and_backward(case, leaves)
    for factor in (1.0, 0.7):
        with torch.no_grad():
            for x in leaves:
                x.mul_(factor)
        graph.replay()
        replayed = [x.clone() for x in captured]
        assert_same(case, replayed, forward_and_backward(case, leaves))


@pytest.mark.parametrize("case", KERNELS_ON_CUDA, ids=str)
def test_the_current_stream_is_used(case: OpCase) -> None:
    leaves = leaves_of(case)
    expected = forward_and_backward(case, leaves)
    late = [torch.full_like(x, float("nan")).requires_grad_() for x in leaves]
    torch.cuda.synchronize()
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        torch.cuda._sleep(20_000_000)  # about 10 ms: a kernel elsewhere would read the NaN
        with torch.no_grad():
            for to, x in zip(late, leaves, strict=True):
                to.copy_(x)
        found = forward_and_backward(case, late)
    aside.synchronize()
    assert_same(case, found, expected)


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("case", ON_CUDA, ids=str)
def test_nothing_waits_for_the_device(case: OpCase) -> None:
    leaves = leaves_of(case)
    forward_and_backward(case, leaves)  # libraries that torch calls wait when they start
    torch.cuda.synchronize()
    with waiting_is_an_error():
        forward_and_backward(case, leaves)


@pytest.mark.parametrize("name", ["mixed", "liere:4", "cayley", "cayley:banded=3", "circulant"])
def test_no_encoding_waits_for_the_device(name: str) -> None:
    encoding = create(name, 16, 2, device=CUDA)
    q, positions = normal(2, 2, 5, 16).float().to(CUDA), normal(4, 2).float().to(CUDA)

    def step() -> None:
        y, z = encoding(q, q, positions, 1)
        (y.sum() + z.sin().sum()).backward()

    step()
    torch.cuda.synchronize()
    with waiting_is_an_error():
        step()


@pytest.mark.parametrize("case", KERNELS_ON_CUDA, ids=str)
def test_only_results_and_one_workspace_are_allocated(case: OpCase) -> None:
    inputs = case.inputs(torch.float32)
    with torch.no_grad():
        results = outputs(case.function(*inputs))
        before = torch.cuda.memory_stats()["allocation.all.allocated"]
        again = case.function(*inputs)
        made = torch.cuda.memory_stats()["allocation.all.allocated"] - before
    del again
    assert made <= len(results) + 1


Q, ANGLES = normal(2, 4, 5, 8).float(), normal(4, 5, 4).float()
GENERATORS, POSITIONS = normal(2, 4, 1, 28).float(), normal(5, 2).float()
MIXED = [
    (
        lambda: ops.rotate_pairs(Q.to(CUDA), Q.to(CUDA), ANGLES),
        "rotate_pairs: angles must be on the device of q, cuda:0, got cpu",
    ),
    (
        lambda: ops.rotate_pairs(Q.to(CUDA), Q, ANGLES.to(CUDA)),
        "rotate_pairs: k must be on the device of q, cuda:0, got cpu",
    ),
    (
        lambda: ops.rotate_pairs(Q, Q, ANGLES.to(CUDA)),
        "rotate_pairs: q must be on the GPU like the other arguments, got cpu",
    ),
    (
        lambda: ops.rotate_circulant(Q.to(CUDA), Q.to(CUDA), ANGLES[..., :3], 8),
        "rotate_circulant: angles must be on the device of q, cuda:0, got cpu",
    ),
    (
        lambda: ops.lie_rotations(GENERATORS.to(CUDA), POSITIONS),
        "lie_rotations: positions must be on the device of generators, cuda:0, got cpu",
    ),
    (
        lambda: ops.lie_rotate(Q.to(CUDA), Q.to(CUDA), GENERATORS, POSITIONS.to(CUDA)),
        "lie_rotate: generators must be on the ",
    ),
    (
        lambda: ops.cayley_rotate(Q.to(CUDA), normal(4, 8, 8).float()),
        "cayley_rotate: s must be on the device of x, cuda:0, got cpu",
    ),
    (
        lambda: torch.ops.lierope.cayley_backward(torch.eye(3, device=CUDA), torch.eye(3)),
        "cayley_backward: grad must be on the device of p, cuda:0, got cpu",
    ),
]


@pytest.mark.parametrize(("call", "text"), MIXED, ids=[text[:60] for _, text in MIXED])
def test_devices_that_do_not_match(call: Callable[[], object], text: str) -> None:
    with pytest.raises(RuntimeError, match="^" + re.escape(text)):
        call()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_kernels_run_where_their_tensors_are() -> None:
    for case in KERNELS:
        leaves = [x.detach().to("cuda:1").requires_grad_() for x in case.inputs(torch.float32)]
        here = [x.detach().to("cuda:0").requires_grad_() for x in case.inputs(torch.float32)]
        with torch.cuda.device(0):
            found = forward_and_backward(case, leaves)
        expected = forward_and_backward(case, here)
        assert {x.device.index for x in found} == {1}
        assert_same(case, [x.to("cuda:0") for x in found], expected)


def has_room() -> bool:
    """Whether this process has the GPU, and enough of its memory, to itself."""
    alone = os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1") == "1"
    return alone and torch.cuda.mem_get_info()[0] > 20 * GIGABYTE


ROTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "pairs": lambda x: ops.rotate_pairs(x, x[:, :0], normal(1, 1024, 32).float().to(CUDA))[0],
    "blocks": lambda x: ops.rotate_blocks(x, x[:, :0], normal(1, 1024, 8, 8, 8).float().to(CUDA))[
        0
    ],
    "lie": lambda x: ops.lie_rotate(
        x, x[:, :0], normal(2, 1, 8, 28).float().to(CUDA), normal(1024, 2).float().to(CUDA)
    )[0],
    "circulant": lambda x: ops.rotate_circulant(
        x, x[:, :0], normal(1, 1024, 31).float().to(CUDA), 64
    )[0],
    "cayley": lambda x: ops.cayley_rotate(x, normal(1, 64, 64).float().to(CUDA), bandwidth=2),
}


@pytest.mark.skipif(not has_room(), reason="needs 20 GB of GPU memory and no other workers")
@pytest.mark.parametrize("name", ROTATIONS)
def test_more_elements_than_32_bits_count(name: str) -> None:
    """Offsets past 2^31: the last sample comes out as it does alone."""
    rotate = ROTATIONS[name]
    torch.cuda.empty_cache()
    x = torch.empty((1 << 15) + 1, 1, 1024, 64, dtype=torch.bfloat16, device=CUDA)
    x.normal_(generator=torch.Generator(CUDA).manual_seed(0))
    assert x.numel() > 1 << 31
    x.requires_grad_()
    y = rotate(x)
    torch.testing.assert_close(y[-1:], rotate(x[-1:]))
    (grad,) = torch.autograd.grad(y, x, y.detach())
    last = x[-1:].detach().requires_grad_()
    alone = rotate(last)
    torch.testing.assert_close(grad[-1:], torch.autograd.grad(alone, last, alone.detach())[0])


@pytest.mark.skipif(not has_room(), reason="needs 20 GB of GPU memory and no other workers")
@pytest.mark.parametrize("op", [ops.expm_skew, ops.cayley])
def test_more_entries_than_32_bits_count(op: Callable[[Tensor], Tensor]) -> None:
    few = normal(100, 8, 8).float().to(CUDA)
    a = torch.zeros((1 << 25) + 100, 8, 8, device=CUDA)
    a[-100:] = few
    assert a.numel() > 1 << 31
    assert torch.equal(op(a)[-100:], op(few))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixed", "liere:8", "cayley", "circulant"])
def test_the_default_compiler(name: str) -> None:
    torch._dynamo.reset()
    encoding = create(name, 16, 2, device=CUDA)
    q = normal(2, 2, 5, 16).float().to(CUDA).requires_grad_()
    positions = normal(4, 2).float().to(CUDA)

    def loss(q: Tensor) -> Tensor:
        return torch.cat(encoding(2 * q, q.sin(), positions, 1)).square().sum()

    wanted = [q, *encoding.parameters()]
    found = torch.autograd.grad(torch.compile(loss, fullgraph=True)(q), wanted)
    for x, e in zip(found, torch.autograd.grad(loss(q), wanted), strict=True):
        torch.testing.assert_close(x, e, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixed", "liere:8", "circulant"])
def test_compiled_into_cuda_graphs(name: str) -> None:
    torch._dynamo.reset()
    encoding = create(name, 16, 2, device=CUDA)
    positions = normal(4, 2).float().to(CUDA)
    compiled = torch.compile(
        lambda q: encoding(q, 2 * q, positions, 1), fullgraph=True, mode="reduce-overhead"
    )
    with torch.no_grad():
        for seed in range(4):  # two warm up, the third is captured
            q = normal(2, 2, 5, 16, seed=seed).float().to(CUDA)
            torch.compiler.cudagraph_mark_step_begin()
            found = [y.clone() for y in compiled(q)]
            for y, e in zip(found, encoding(q, 2 * q, positions, 1), strict=True):
                torch.testing.assert_close(y, e)


class Attention(nn.Module):
    """One layer of attention with an encoding, as a model has it under autocast."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project = nn.Linear(32, 96)
        self.encoding = create(name, 16, 2)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """(B, N, 32) to (B, H, N, 16)."""
        qkv = self.project(x).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
        q, k = self.encoding(qkv[0], qkv[1], positions, 1)
        return nn.functional.scaled_dot_product_attention(q, k, qkv[2])


@pytest.mark.parametrize("name", ["mixed", "liere:8", "cayley", "circulant"])
def test_training_under_autocast(name: str) -> None:
    layer = Attention(name).to(CUDA)
    x, positions = normal(4, 10, 32).float().to(CUDA), normal(9, 2).float().to(CUDA)
    wanted = list(layer.parameters())
    exact = torch.autograd.grad(layer(x, positions).square().sum(), wanted)
    with torch.autocast("cuda", torch.bfloat16):
        y = layer(x, positions)
        loss = y.float().square().sum()
    assert y.dtype == torch.bfloat16
    for found, e in zip(torch.autograd.grad(loss, wanted), exact, strict=True):
        assert found.dtype == torch.float32
        # 8 bits of q, k and the attention's output; gradients of single entries may cancel.
        assert (found - e).norm() <= 0.05 * e.norm()
