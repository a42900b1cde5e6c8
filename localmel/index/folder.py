"""The folder of an index: who may write it, and whether it is the one that was asked for.

In: what `IndexFacts` says about the vectors.  Out: a sealed folder, or an error that says what differs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from localmel.errors import BadInput, CorruptArtifact, KbBusy, shell_line
from localmel.index.protocol import IndexFacts
from localmel.index.settings import IndexSettings
from localmel.store.artifacts import MANIFEST, failed_writes_are_reported, new_folder, read_manifest, sha256_of
from localmel.store.codec import from_json, to_json

KIND, VERSION = "vector index", 1
ARRAYS = "index.safetensors"
_Settings = TypeVar("_Settings", bound=IndexSettings)


class Origin:
    """Where an index was loaded from or last saved, so that a change by another process is not overwritten."""

    def __init__(self) -> None:
        self._seal: tuple[Path, str] | None = None

    def remember(self, folder: Path) -> None:
        """This index and that folder now say the same."""
        self._seal = (folder.resolve(), sha256_of(folder / MANIFEST))

    def check(self, folder: Path) -> None:
        """Raise KbBusy when the folder has changed since."""
        if self._seal is None or folder.resolve() != self._seal[0] or not (folder / MANIFEST).exists():
            return
        if sha256_of(folder / MANIFEST) != self._seal[1]:
            raise KbBusy(
                f"index {folder} was changed by another process since it was loaded",
                hint="load it again, then make the change again",
            )


@contextmanager
def saving(
    folder: Path, facts: IndexFacts, settings: IndexSettings, *, width: int, count: int, origin: Origin
) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder`.  One writer at a time; a second one is refused with KbBusy."""
    from filelock import FileLock, Timeout

    if facts.width != width:
        raise BadInput(f"the index holds vectors of width {width}, its facts say {facts.width}")
    with failed_writes_are_reported(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise KbBusy(
                f"index {folder} is being written by another process",
                hint=shell_line("fuser", lock.lock_file, note="shows which; wait for it, then run the same again"),
            ) from None
        try:
            origin.check(folder)
            written = {**to_json(facts), "count": count, "index": settings.kind, "settings": to_json(settings)}
            with new_folder(folder, kind=KIND, version=VERSION, facts=written) as temporary:
                yield temporary
            origin.remember(folder)
        finally:
            lock.release()


def checked_manifest(folder: Path, facts: IndexFacts) -> dict[str, Any]:
    """The manifest, when the index was made in that space from those vectors."""
    manifest = read_manifest(folder, kind=KIND, version=VERSION)
    for name, asked in to_json(facts).items():
        if (found := manifest.get(name)) != asked:
            what = {"space": "space", "width": "width", "made_from": "hash of the vectors"}[name]
            raise BadInput(
                f"index {folder} is of other vectors: its {what} is {found!r}, asked for is {asked!r}",
                hint=_again(folder),
            )
    return manifest


def settings_from(manifest: dict[str, Any], kind: type[_Settings], folder: Path, **changed: object) -> _Settings:
    """The settings an index was built with."""
    given = {**manifest.get("settings", {}), **changed}
    return from_json(kind, given, where=f"the settings of index {folder}", again=_again(folder))


def damaged(folder: Path, what: str) -> CorruptArtifact:
    """The error for a sealed folder whose inside does not fit together."""
    return CorruptArtifact(f"index {folder} holds {what}", hint=_again(folder))


def _again(folder: Path) -> str:
    return shell_line("rm -r", folder, note="then run again what made it")
