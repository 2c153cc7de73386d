"""Builds tests/cpp/main.cpp, gives it calls with known results and a compiled model, and runs it.

python tests/cpp/run.py [FOLDER]        (make cpp; FOLDER keeps what is made)
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim
from torch.utils import cpp_extension

import lierope
from lierope import reference

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from tiny_models import images, vit  # noqa: E402


def calls() -> list[tuple[str, list[Any], list[Tensor]]]:
    """Operators of the dispatcher, with arguments, and results of the reference in float64."""
    torch.manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64)

    a, s, x, q, k = random(3, 6, 6), random(2, 8, 8), random(2, 2, 5, 8), *random(2, 2, 2, 5, 8)
    generators, positions, angles = random(2, 2, 2, 6), random(4, 2), random(2, 4, 4)
    rotations = reference.lie_rotations(generators, positions)
    prefix = {"num_prefix_tokens": 1}
    grad = random(3, 6, 6)
    leaf = a.clone().requires_grad_()
    (backward,) = torch.autograd.grad(reference.expm_skew(leaf), leaf, grad)
    circulant = reference.rotate_circulant(q, k, angles[..., :3], 8, **prefix)
    return [
        ("expm_skew", [a], [reference.expm_skew(a)]),
        ("expm_skew_backward", [a, grad], [backward]),
        ("lie_rotations", [generators, positions], [rotations]),
        (
            "lie_rotate",
            [q, k, generators, positions, 1],
            [*reference.lie_rotate(q, k, generators, positions, **prefix)],
        ),
        (
            "rotate_blocks",
            [q, k, rotations, 1, False],
            [*reference.rotate_blocks(q, k, rotations, **prefix)],
        ),
        (
            "rotate_pairs",
            [q, k, angles, 1, True, False],
            [*reference.rotate_pairs(q, k, angles, **prefix)],
        ),
        ("rotate_circulant", [q, k, angles[..., :3].contiguous(), 8, 1, False], [*circulant]),
        ("cayley", [s], [reference.cayley(s)]),
        ("cayley_rotate", [x, s, 7, False], [reference.cayley_rotate(x, s)]),
    ]


@torch.no_grad()
def compile_model(folder: Path) -> dict[str, Tensor]:
    """Export a small ViT with LieRE and compile it ahead of time; returns what it computes here."""
    model = lierope.swap(vit(depth=1), "liere:4").eval()
    batch = images(3)
    shapes = ({0: Dim("batch", min=2, max=64)},)
    program = torch.export.export(model, (batch,), dynamic_shapes=shapes)
    assert "lierope.lie_rotate" in str(program.graph), "the model must call an operator"
    torch._inductor.aoti_compile_and_package(program, package_path=str(folder / "model.pt2"))
    return {"images": batch, "logits": model(batch)}


def build(folder: Path) -> Path:
    """Compile and link the program against LibTorch; lierope is not among its needs."""
    program = folder / "program"
    includes = [f"-isystem{path}" for path in cpp_extension.include_paths()]
    libraries = cpp_extension.library_paths()
    link = [word for path in libraries for word in (f"-L{path}", f"-Wl,-rpath,{path}")]
    words = [os.environ.get("CXX", "g++"), "-std=c++20", "-O1", "-Wall", "-Wextra", *includes]
    words += [str(HERE / "main.cpp"), "-o", str(program), *link]
    subprocess.run([*words, "-ltorch", "-ltorch_cpu", "-lc10"], check=True)
    return program


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """Make everything in `folder` and run the program without Python's environment."""
    saved = {"calls": calls(), **compile_model(folder)}
    torch.save(saved, folder / "calls.pt")
    library = lierope.build_info().library
    words = [str(build(folder)), library, str(folder / "calls.pt"), str(folder / "model.pt2")]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def main(folder: Path) -> int:
    """Run it and show what it says."""
    folder.mkdir(parents=True, exist_ok=True)
    done = run(folder)
    print(done.stdout + done.stderr, end="")
    return done.returncode


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as name:
        sys.exit(main(Path(name)))
