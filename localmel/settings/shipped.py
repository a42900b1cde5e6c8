"""Find the files that ship with localmel: `weights/` and `examples/`.

In: a path in the repository.  Out: the same file or folder on this machine.  A wheel has both folders inside the
package, a source checkout has them next to it; no other module needs to know which of the two this is."""

from __future__ import annotations

from pathlib import Path

from localmel.errors import CorruptArtifact, shell_line

_PACKAGE = Path(__file__).resolve().parents[1]
_IN_WHEEL = _PACKAGE / "_shipped"
_IN_CHECKOUT = _PACKAGE.parent


def shipped(path: str) -> Path:
    """Return the path of a shipped file, such as "weights/minilm-l6-v2/graph.onnx".  Raises CorruptArtifact."""
    installed = _IN_WHEEL.is_dir()
    root = _IN_WHEEL if installed else _IN_CHECKOUT
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
    """Return the folder of weights that a profile names: a name under weights/, or a path with a /."""
    return Path(name).expanduser() if "/" in name else shipped(f"weights/{name}")
