"""Creates the virtual environment of the Makefile.

    python tools/setup.py run FOLDER TORCH    what building and training need, and the library
    python tools/setup.py dev FOLDER          what tests and checks need besides

It keeps the interpreter's own torch when there is one, and else installs a CPU build of the version
given.
"""

import re
import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def own_torch() -> str | None:
    """Version of the torch that this interpreter has, or None."""
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None
    if tuple(int(x) for x in re.findall(r"\d+", version)[:2]) < (2, 11):
        raise SystemExit(f"setup: torch must be 2.11 or newer, got {version} in {sys.executable}")
    return version


def extra(name: str) -> list[str]:
    """Requirements of an extra of pyproject.toml (read by eye: Python 3.10 has no tomllib)."""
    text = (ROOT / "pyproject.toml").read_text()
    match = re.search(rf"^{name} = \[(.*?)\]", text, re.DOTALL | re.MULTILINE)
    if match is None:
        raise SystemExit(f"setup: pyproject.toml must have an extra {name}")
    return re.findall(r'"([^"]+)"', match[1])


def create(folder: Path, torch: str) -> None:
    """Set up `folder` to build and train, with torch `torch` unless there is an own one."""
    found = own_torch()
    venv.create(folder, with_pip=True, clear=True)
    python = folder / "bin" / "python"
    if found is None:
        pip(python, f"torch=={torch}", "numpy", "setuptools>=77")
    else:
        show_own_torch(python)
        pip(python, "setuptools>=77")
    # The compiler works while pip waits for the network.
    build = subprocess.Popen([str(python), "setup.py", "-q", "build_ext", "--inplace"], cwd=ROOT)
    try:
        install_vision(python, found or torch)
        requirements = [r for r in extra("train") if not r.startswith(("torchvision", "timm"))]
        pip(python, *requirements, "pyyaml", "huggingface_hub", "pillow")
    finally:
        failed = build.wait() != 0
    if failed:
        raise SystemExit("setup: the library did not build; its compiler says why above")
    pip(python, "--no-build-isolation", "--no-deps", "-e", str(ROOT))


def show_own_torch(python: Path) -> None:
    """Let the environment see this interpreter's packages.

    By a .pth file, so that an interpreter that is itself in a virtual environment serves too.
    """
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True)
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(site.stdout.strip()) / "own_torch.pth").write_text("\n".join(sorted(paths)) + "\n")


def install_vision(python: Path, torch: str) -> None:
    """Install torchvision and timm without their requirements, which may name a CUDA torch."""
    major, minor = re.findall(r"\d+", torch)[:2]
    if not installed(python, "torchvision"):
        if major != "2":
            raise SystemExit(f"setup: torch must be 2.x to know its torchvision, got {torch}")
        pip(python, "--no-deps", f"torchvision==0.{int(minor) + 15}.*")
    if not installed(python, "timm"):
        pip(python, "--no-deps", next(r for r in extra("train") if r.startswith("timm")))


def pip(python: Path, *words: str) -> None:
    """Run pip install; byte code is left to the first import."""
    command = [str(python), "-m", "pip", "install", "-q", "--no-compile", *words]
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit(f"setup: this command failed: {' '.join(command)}")


def installed(python: Path, name: str) -> bool:
    """Whether the environment has a distribution of that name."""
    code = f"from importlib import metadata; metadata.version({name!r})"
    return (
        subprocess.run([str(python), "-c", code], capture_output=True, check=False).returncode == 0
    )


if __name__ == "__main__":
    stage, folder = sys.argv[1], Path(sys.argv[2])
    if stage == "dev":
        pip(folder / "bin" / "python", *extra("dev"))
    else:
        create(folder, sys.argv[3])
