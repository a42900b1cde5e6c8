"""A folder of somebody's weights -> which of its files are the model, and what is known of where it comes from.

In: a plain folder, a snapshot in a Hugging Face cache, or the cache's folder of a model.  Out: files by name, with
the facts that can be read off the folder, or a record with their hashes.  Looks the folder over as `model_folder` does;
writes nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from localmel.errors import BadInput, CorruptArtifact, LocalmelError, MissingWeights, shell_line
from localmel.store import progress
from localmel.weights.catalog import CatalogEntry, catalog
from localmel.weights.complete import whole_model
from localmel.weights.contents import PIECE, check_beginning, refused_name
from localmel.weights.manifest import MOST_FILES, RESERVED, FileRecord, ModelRecord

"Told how many more bytes were read or written."

_LICENCES = re.compile(r"(?i)(licen[cs]e|notice|copying|use_policy)([._-].*)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NO_NAME = re.compile(r"[^A-Za-z0-9_.+-]+")
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """The files of one model where they stand."""

    folder: Path
    files: Mapping[str, Path]
    left_out: Mapping[str, str]
    "Files of the folder that are no part of the model, with the reason."
    repository: str
    revision: str
    licence: str
    purpose: str


def is_licence(path: str) -> bool:
    """Whether a file of that name is likely to be the text of a licence."""
    return bool(_LICENCES.fullmatch(path.rpartition("/")[2]))


def model_source(folder: Path) -> ModelSource:
    """Look a folder over.  Raises MissingWeights, CorruptArtifact or UnsafeWeights, naming the file."""
    folder = _snapshot(folder)
    try:
        used = set(whole_model(folder).tensor_files)
    except LocalmelError as error:
        raise type(error)(error.fact, hint=error.hint or shell_line("ls -l", folder)) from None
    files: dict[str, Path] = {}
    left_out: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or any(part.startswith(".") for part in name.split("/")):
            continue
        reason = refused_name(name) or ("is localmel's own" if path.name in RESERVED else "")
        if path.suffix == ".safetensors" and path not in used:
            reason = "is not among the weights that a loader would read"
        if reason or not path.is_file():
            left_out[name] = reason or "is no file"
            continue
        with path.open("rb") as file:
            check_beginning(str(path), file.read(1024))
        files[name] = path
    if len(files) > MOST_FILES:
        raise BadInput(f"{folder} holds {len(files):,} files; at most {MOST_FILES:,} make a model")
    repository, revision = _from_cache(folder)
    entry = _entry(repository)
    return ModelSource(
        folder=folder,
        files=files,
        left_out=left_out,
        repository=repository,
        revision=revision,
        licence=entry.licence if entry else _licence_of_card(folder / "README.md"),
        purpose=entry.purpose if entry else "",
    )


def hashed_record(
    source: ModelSource,
    name: str,
    *,
    adopted: bool = False,
) -> ModelRecord:
    """The record of a source, every file read and hashed.  Raises CorruptArtifact for a damaged file of a cache."""
    progress.begin(f"reading {name}", sum(path.stat().st_size for path in source.files.values()), unit=progress.BYTES)
    files = {}
    for path, file in source.files.items():
        before = file.stat()
        digest = sha256_counted(file)
        if file.stat().st_mtime_ns != before.st_mtime_ns or file.stat().st_size != before.st_size:
            raise CorruptArtifact(f"{file} changed while it was read")
        blob = file.resolve().name if file.is_symlink() else ""
        if _SHA256.fullmatch(blob) and blob != digest:
            raise CorruptArtifact(f"{file} is damaged: the cache names it by sha256 {blob}, its bytes have {digest}")
        files[path] = FileRecord(bytes=before.st_size, sha256=digest, changed_ns=before.st_mtime_ns if adopted else 0)
    return ModelRecord(
        name=name,
        files=files,
        repository=source.repository,
        revision=source.revision,
        licence=source.licence,
        purpose=source.purpose,
        adopted=str(source.folder.absolute()) if adopted else "",
    )


def sha256_counted(path: Path) -> str:
    """Hex digest of a file's bytes; says after every piece how many more it has read."""
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            progress.advance(len(piece))
    return digest.hexdigest()


def suggested_name(folder: Path) -> str:
    """What a folder's model could be called: its name in the catalog, or else the folder's own name.

    What no name may hold stands there as "-"."""
    repository = _from_cache(_snapshot(folder))[0]
    entry = _entry(repository)
    own = repository.rpartition("/")[2] or folder.absolute().name
    return entry.name if entry else _NO_NAME.sub("-", own).strip("-.") or own


def _snapshot(folder: Path) -> Path:
    """Of a cache's `models--owner--name` the snapshot that `main` points to, or the only one; else the folder."""
    if folder.name.startswith("models--") and (folder / "snapshots").is_dir():
        snapshots = sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())
        reference = folder / "refs" / "main"
        main = reference.read_text(encoding="utf-8").strip() if reference.is_file() else ""
        named = [path for path in snapshots if path.name == main]
        if not named and len(snapshots) != 1:
            there = ", ".join(path.name for path in snapshots) or "none"
            raise MissingWeights(
                f"{folder} has no one snapshot to take (there are: {there})", hint=f"{folder}/snapshots/…"
            )
        return (named or snapshots)[0]
    return folder


def _from_cache(folder: Path) -> tuple[str, str]:
    """Repository and revision, where the path is one of a Hugging Face cache; else two empty texts."""
    folder = folder.absolute()
    cache = folder.parent.parent
    if folder.parent.name != "snapshots" or not cache.name.startswith("models--"):
        return "", ""
    return cache.name.removeprefix("models--").replace("--", "/", 1), folder.name


def _entry(repository: str) -> CatalogEntry | None:
    return next((entry for entry in catalog().values() if repository and entry.repository == repository), None)


def _licence_of_card(path: Path) -> str:
    """The `license:` line of a model card's front matter; empty where there is none."""
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", errors="replace") as file:
        front = _FRONT_MATTER.match(file.read(16_384))
    found = re.search(r"(?m)^license:\s*[\"']?([\w.+-]{1,60})[\"']?\s*$", front.group(1)) if front else None
    return found.group(1) if found else ""
