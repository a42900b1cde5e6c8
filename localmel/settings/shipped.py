"""Where the files that travel with localmel lie: `weights/` and `examples/`.

In: a path as it stands in the repository.  Out: the same file or folder on this machine.  A wheel carries both folders
inside the package, a source checkout has them beside it; nobody else needs to know which of the two this is."""

from __future__ import annotations

from pathlib import Path

from localmel.errors import CorruptArtifact, shell_line

_PACKAGE = Path(__file__).resolve().parents[1]
_INSIDE_A_WHEEL = _PACKAGE / "_shipped"
_BESIDE_A_CHECKOUT = _PACKAGE.parent


def shipped(path: str) -> Path:
    """`shipped("weights/minilm-l6-v2/graph.onnx")` -> an existing path.  Raises CorruptArtifact."""
    installed = _INSIDE_A_WHEEL.is_dir()
    root = _INSIDE_A_WHEEL if installed else _BESIDE_A_CHECKOUT
    found = root / path
    if found.exists():
        return found
    if installed:
        raise CorruptArtifact(
            f"this installation of localmel lacks {path!r} (looked in {root})",
            hint="pip install --force-reinstall --no-deps localmel",
        )
    raise CorruptArtifact(
        f"this checkout of localmel lacks {path!r} (looked in {root})",
        hint=shell_line("git -C", root, "checkout", "--", path),
    )


def weights_folder(name: str) -> Path:
    """A folder of weights as a profile names it: by its name under weights/, or by a path that holds a /."""
    return Path(name).expanduser() if "/" in name else shipped(f"weights/{name}")
