"""Write the folder of an index, and check it when it is read.

In: the `IndexFacts` of the vectors.  Out: a sealed folder, or an error that says what differs."""

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
    """Remembers where an index was loaded or last saved, so that it does not overwrite another process's change."""

    def __init__(self) -> None:
        self._seal: tuple[Path, str] | None = None

    def remember(self, folder: Path) -> None:
        """Note that this index and that folder now hold the same."""
        self._seal = (folder.resolve(), sha256_of(folder / MANIFEST))

    def check(self, folder: Path) -> None:
        """Raise KbBusy if the folder has changed since."""
        if self._seal is None or folder.resolve() != self._seal[0] or not (folder / MANIFEST).exists():
            return
        if sha256_of(folder / MANIFEST) != self._seal[1]:
            raise KbBusy(
                f"cannot save index {folder}: another process has changed it since it was loaded",
                hint="load it again and repeat the change",
            )


@contextmanager
def saving(
    folder: Path, facts: IndexFacts, settings: IndexSettings, *, width: int, count: int, origin: Origin
) -> Iterator[Path]:
    """Yield a temporary folder that then replaces `folder`.  Raises KbBusy for a second writer."""
    from filelock import FileLock, Timeout

    if facts.width != width:
        raise BadInput(f"cannot save the index: its vectors have width {width}, its facts say {facts.width}")
    with failed_writes_are_reported(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise KbBusy(
                f"another process is writing index {folder}",
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
    """Return the manifest.  Raises BadInput unless the index is of that space and those vectors."""
    manifest = read_manifest(folder, kind=KIND, version=VERSION)
    for name, asked in to_json(facts).items():
        if (found := manifest.get(name)) != asked:
            what = {"space": "space", "width": "width", "made_from": "hash of the vectors"}[name]
            raise BadInput(
                f"index {folder} is of other vectors: its {what} is {found!r}, not {asked!r}", hint=_again(folder)
            )
    return manifest


def settings_from(manifest: dict[str, Any], kind: type[_Settings], folder: Path, **changed: object) -> _Settings:
    """Return the settings that an index was built with.  Raises CorruptArtifact."""
    given = {**manifest.get("settings", {}), **changed}
    return from_json(kind, given, where=f"the settings of index {folder}", again=_again(folder))


def damaged(folder: Path, what: str) -> CorruptArtifact:
    """Return the error for a sealed folder whose files contradict each other."""
    return CorruptArtifact(f"index {folder} holds {what}", hint=_again(folder))


def _again(folder: Path) -> str:
    return shell_line("rm -r", folder, note="then run again what made it")
