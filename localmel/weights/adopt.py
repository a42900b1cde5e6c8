"""Weights that lie somewhere else -> a model with a name, without copying a byte.

In: a plain folder, or one of a Hugging Face cache.  Out: a record of every file's size, hash and time of change under
the user's home.  The folder itself is only read; when it changes later, the next look-up says so."""

from __future__ import annotations

from pathlib import Path

from localmel.errors import BadInput, UsageError, shell_line
from localmel.store.artifacts import replace_folder, temporary_folder
from localmel.weights.catalog import MINILM, catalog
from localmel.weights.catalog_names import check_catalog_name
from localmel.weights.folders import checked_name, place_of, weights_home
from localmel.weights.install import exclusive
from localmel.weights.manifest import ModelRecord, write_record
from localmel.weights.sources import hashed_record, model_source, suggested_name


def adopt(
    folder: Path,
    *,
    name: str = "",
    replace_installed: bool = False,
) -> ModelRecord:
    """Record a folder under a name (without one: as the catalog or the folder calls it).

    Raises what `model_folder` raises, CorruptArtifact for a damaged file of a cache, BadInput for a name in use and
    for a name of the catalog that this model cannot have."""
    if folder.is_file():
        raise BadInput(f"{folder} is a file, no folder to adopt", hint=shell_line("localmel weights install", folder))
    if not folder.is_dir():
        raise BadInput(f"there is no folder {folder}", hint=shell_line("ls -l", folder.parent))
    source = model_source(folder.absolute())
    name = checked_name(name or _as_in_the_catalog(suggested_name(folder)))
    if name == MINILM.name:
        raise UsageError(f"{name!r} comes with a Python package", hint="--name another-name")
    if source.folder.resolve().is_relative_to(weights_home().resolve()):
        raise UsageError(f"{folder} is installed already", hint="localmel weights list")
    check_catalog_name(name, source.folder, f"{folder}")
    place = place_of(name)
    if place.exists() and not replace_installed:
        raise BadInput(
            f"weights are installed as {name!r}", hint=f"add --replace, or: localmel weights rm --yes {name}"
        )
    record = hashed_record(source, name, adopted=True)
    with exclusive(), temporary_folder(place) as temporary:
        write_record(temporary, record)
        replace_folder(temporary, place)
    return record


def _as_in_the_catalog(suggested: str) -> str:
    """The catalog's spelling of a folder's name, as `Qwen2.5-7B-Instruct` on its page; else the name as it is."""
    return next((one for one in catalog() if one.casefold() == suggested.casefold()), suggested)
