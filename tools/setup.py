"""Creates the virtual environment: the interpreter's own torch when it has one, else a CPU build; then what else is needed."""

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
    assert match is not None, f"pyproject.toml has no extra {name}"
    return re.findall(r'"([^"]+)"', match[1])


def main(folder: str, torch: str) -> None:
    """Set up `folder` with torch `torch` unless this interpreter has its own."""
    found = own_torch()
    venv.create(folder, with_pip=True, clear=True)
    python = Path(folder) / "bin" / "python"

    def pip(*words: str) -> None:
        subprocess.run([str(python), "-m", "pip", "install", "-q", *words], check=True)

    if found is None:
        pip(f"torch=={torch}", "numpy")
    else:  # seen through a .pth file, so that an interpreter which is itself in a virtual environment serves too
        paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        site = subprocess.run(
            [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        (Path(site) / "own_torch.pth").write_text("\n".join(sorted(paths)) + "\n")
    major, minor = re.findall(r"\d+", found or torch)[:2]
    pip("setuptools>=77", "wheel")
    # torchvision's minor version runs 15 ahead of torch's; without its own requirements, which name a CUDA build of torch.
    assert major == "2", f"setup: torch must be 2.x to know its torchvision, got {found or torch}"
    requirements = [r for r in (*extra("train"), *extra("dev")) if not r.startswith("torchvision")]
    timm = next(r for r in requirements if r.startswith("timm"))
    requirements.remove(timm)
    if not installed(python, "torchvision"):
        pip("--no-deps", f"torchvision==0.{int(minor) + 15}.*")
    if not installed(python, "timm"):
        pip("--no-deps", timm)
    pip(*requirements, "pyyaml", "huggingface_hub", "pillow")
    pip("--no-build-isolation", "--no-deps", "-e", str(ROOT))


def installed(python: Path, name: str) -> bool:
    """Whether the environment has a distribution of that name."""
    code = f"from importlib import metadata; metadata.version({name!r})"
    return subprocess.run([str(python), "-c", code], capture_output=True).returncode == 0


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
