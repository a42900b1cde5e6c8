"""Somebody's folder of weights: which of its files are the model, where they come from, and how it is adopted.

In: a plain folder, a snapshot in a Hugging Face cache, or the cache's folder of a model.  Out: files by name with the
facts that can be read off the folder, or a record with their hashes.  To adopt is to keep such a record under a name
and to copy nothing: the folder is only read, and when it changes later, the next look-up says so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from localmel.errors import BadInput, CorruptArtifact, LocalmelError, MissingWeights, UsageError, shell_line
from localmel.store import progress
from localmel.store.artifacts import replace_folder, temporary_folder
from localmel.weights.catalog import MINILM, CatalogEntry, catalog, check_catalog_name
from localmel.weights.contents import PIECE, check_beginning, refused_name
from localmel.weights.folders import checked_name, exclusive, place_of, weights_home
from localmel.weights.manifest import MOST_FILES, RESERVED, FileRecord, ModelRecord, write_record
from localmel.weights.model_folder import model_folder

_LICENCES = re.compile(r"(?i)(licen[cs]e|notice|copying|use_policy)([._-].*)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.+-]+")
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """The files of one model where they are."""

    folder: Path
    files: Mapping[str, Path]
    left_out: Mapping[str, str]
    "Files of the folder that are not part of the model, with the reason."
    repository: str
    revision: str
    licence: str
    purpose: str


def is_licence(path: str) -> bool:
    """Say whether a file of that name is likely to hold the text of a licence."""
    return bool(_LICENCES.fullmatch(path.rpartition("/")[2]))


def model_source(folder: Path) -> ModelSource:
    """Check a folder and sort its files.  Raises MissingWeights, CorruptArtifact or UnsafeWeights, naming the file."""
    folder = _snapshot(folder)
    try:
        used = set(model_folder(folder).weight_files)
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
            left_out[name] = reason or "is not a file"
            continue
        with path.open("rb") as file:
            check_beginning(str(path), file.read(1024))
        files[name] = path
    if len(files) > MOST_FILES:
        raise BadInput(f"{folder} holds {len(files):,} files; a model may have {MOST_FILES:,}")
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


def hashed_record(source: ModelSource, name: str, *, adopted: bool = False) -> ModelRecord:
    """Read and hash every file of a source.  Raises CorruptArtifact for a damaged file of a cache."""
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


def adopt(folder: Path, *, name: str = "", replace_installed: bool = False) -> ModelRecord:
    """Record a folder under a name; without one, under the catalog's name or the folder's own.

    Raises the errors of `model_folder`, CorruptArtifact for a damaged file of a cache, BadInput for a name in use or
    a name of the catalog that this model cannot have."""
    if folder.is_file():
        raise BadInput(
            f"cannot adopt {folder}: it is a file, not a folder", hint=shell_line("localmel weights install", folder)
        )
    if not folder.is_dir():
        raise BadInput(f"there is no folder {folder}", hint=shell_line("ls -l", folder.parent))
    source = model_source(folder.absolute())
    suggested = suggested_name(folder)
    spelled = next((one for one in catalog() if one.casefold() == suggested.casefold()), suggested)
    name = checked_name(name or spelled)
    if name == MINILM.name:
        raise UsageError(f"{name!r} comes with a Python package", hint="--name another-name")
    if source.folder.resolve().is_relative_to(weights_home().resolve()):
        raise UsageError(f"{folder} is already installed", hint="localmel weights list")
    check_catalog_name(name, source.folder, f"{folder}")
    place = place_of(name)
    if place.exists() and not replace_installed:
        hint = f"add --replace, or: localmel weights rm --yes {name}"
        raise BadInput(f"weights are already installed as {name!r}", hint=hint)
    record = hashed_record(source, name, adopted=True)
    with exclusive(), temporary_folder(place) as temporary:
        write_record(temporary, record)
        replace_folder(temporary, place)
    return record


def sha256_counted(path: Path) -> str:
    """Return the hex digest of a file, reporting progress after every piece."""
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            progress.advance(len(piece))
    return digest.hexdigest()


def suggested_name(folder: Path) -> str:
    """Return a name for a folder's model: the catalog's, or else the folder's own in characters that names allow."""
    repository = _from_cache(_snapshot(folder))[0]
    entry = _entry(repository)
    own = repository.rpartition("/")[2] or folder.absolute().name
    return entry.name if entry else _NOT_IN_NAMES.sub("-", own).strip("-.") or own


def _snapshot(folder: Path) -> Path:
    """Return the snapshot of a cache's `models--owner--name` (main's, or the only one); else the folder."""
    if folder.name.startswith("models--") and (folder / "snapshots").is_dir():
        snapshots = sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())
        reference = folder / "refs" / "main"
        main = reference.read_text(encoding="utf-8").strip() if reference.is_file() else ""
        named = [path for path in snapshots if path.name == main]
        if not named and len(snapshots) != 1:
            there = ", ".join(path.name for path in snapshots) or "none"
            raise MissingWeights(f"cannot choose a snapshot of {folder}: it has {there}", hint=f"{folder}/snapshots/…")
        return (named or snapshots)[0]
    return folder


def _from_cache(folder: Path) -> tuple[str, str]:
    """Return repository and revision of a path in a Hugging Face cache; two empty texts for any other."""
    folder = folder.absolute()
    cache = folder.parent.parent
    if folder.parent.name != "snapshots" or not cache.name.startswith("models--"):
        return "", ""
    return cache.name.removeprefix("models--").replace("--", "/", 1), folder.name


def _entry(repository: str) -> CatalogEntry | None:
    return next((entry for entry in catalog().values() if repository and entry.repository == repository), None)


def _licence_of_card(path: Path) -> str:
    """Return the `license:` of a model card's front matter; empty where there is none."""
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", errors="replace") as file:
        front = _FRONT_MATTER.match(file.read(16_384))
    found = re.search(r"(?m)^license:\s*[\"']?([\w.+-]{1,60})[\"']?\s*$", front.group(1)) if front else None
    return found.group(1) if found else ""
