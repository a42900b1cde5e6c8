"""Find a model by name or path and check the folder that holds it.

In: a name in the catalog or of installed weights, or a path with a /.  Out: a complete folder with configuration,
safetensors and tokenizer, each file of the recorded size, and its record.  Reads no tensor (`localmel weights verify`
does) and fetches nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from localmel.errors import LocalmelError, MissingWeights, UsageError
from localmel.store.artifacts import MANIFEST
from localmel.weights.catalog import MINILM, catalog, verified_folder
from localmel.weights.folders import installed_names, place_of
from localmel.weights.manifest import ModelRecord, check_quickly, holds_record, read_record
from localmel.weights.model_folder import ModelFolder, model_folder
from localmel.weights.tuned import MADE_AGAIN, looks_tuned

INSTALL = "localmel weights install BUNDLE.tar"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModel:
    """A model on this machine: its folder, and what was recorded when it was installed or adopted."""

    name: str
    folder: ModelFolder
    record: ModelRecord | None
    "None for packaged weights, and for a path that nobody installed or adopted."

    @property
    def path(self) -> Path:
        """The folder itself."""
        return self.folder.path


def find_model(name: str) -> FoundModel:
    """Return the model of that name or path.

    Raises MissingWeights (exit 4), CorruptArtifact (6), UnsafeWeights (3) or UsageError (2)."""
    if name == MINILM.name:
        return FoundModel(name=name, folder=model_folder(verified_folder(MINILM)), record=None)
    if "/" in name:
        return _at_path(name)
    place = place_of(name)
    if not (place / MANIFEST).is_file():
        state = (
            "in the catalog but not on this machine" if name in catalog() else "neither installed nor in the catalog"
        )
        there = ", ".join(installed_names()) or "none"
        raise MissingWeights(f"the model {name!r} is {state}; installed: {there}", hint=INSTALL)
    return _recorded(name, place, hint=f"localmel weights verify {name}")


def _at_path(name: str) -> FoundModel:
    try:
        folder = Path(name).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{name!r} is not a path ({error})", hint="give the path from / on") from None
    hint = MADE_AGAIN if looks_tuned(folder) else INSTALL
    if holds_record(folder):
        return _recorded(name, folder, hint=hint)
    return FoundModel(name=name, folder=_checked(folder, hint=hint), record=None)


def _recorded(name: str, place: Path, *, hint: str) -> FoundModel:
    record = read_record(place)
    folder = Path(record.adopted) if record.adopted else place
    check_quickly(record, folder)
    return FoundModel(name=name, folder=_checked(folder, hint=hint), record=record)


def _checked(folder: Path, *, hint: str) -> ModelFolder:
    try:
        return model_folder(folder)
    except LocalmelError as error:
        if error.hint:
            raise
        raise type(error)(error.fact, hint=hint) from None
