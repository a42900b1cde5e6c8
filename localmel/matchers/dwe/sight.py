"""Open the detectors that a choice of DWE+ names, from the choice itself or from the card of a trained matcher.

In: a `DweChoice`, or the one stored in a card.  Out: detectors, and the facts that their results depend on.  A matcher
trained with one detector is never run with another: if the card's detector is missing, or its bytes differ, that is an
error with the next command."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from localmel.engines.open import open_model
from localmel.errors import BadInput, CorruptArtifact, LocalmelError, MissingExtra, MissingWeights, shell_line
from localmel.matchers.dwe.choice import VLM, DweChoice, choice_from
from localmel.matchers.trained import CARD as FILE
from localmel.see.detectors import open_detector, same_boxes
from localmel.see.objects import Detector

CARD = "sees"
"Key of the choice in a card."
_TRAIN = "localmel train DATA --kb KB --matcher dwe --out runs/NAME"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DweSight:
    """The models that look at pictures, and the questions they are asked."""

    choice: DweChoice
    objects: Detector | None
    faces: Detector | None
    model: str = ""
    "Revision of the vision-language model, if one is used."

    def facts(self) -> dict[str, Any]:
        """Return the facts that mention features depend on, in addition to mentions and encoders."""
        choice, asked = self.choice, self.choice.attribute_settings
        made: dict[str, Any] = {
            "detector": dict(self.objects.facts) if self.objects else None,
            "attributes": asdict(asked) if asked else None,
        }
        if self.faces:
            made["faces"] = dict(self.faces.facts)
        if asked:
            made["asked"] = {"by": choice.attributes, "model": self.model, "sentences": _sentences(choice)}
        if choice.identity:
            made["identity"] = asdict(choice.identity_settings)
        if choice.written:
            made["written"] = {"texts": list(choice.written), "by": choice.written_by}
        return made

    def for_card(self) -> dict[str, Any]:
        """Return the choice and what it resolves to on this machine, with a hash that detects changes by hand."""
        made = {
            "choice": self.choice.as_json(),
            "detector": dict(self.objects.facts) if self.objects else None,
            "faces": dict(self.faces.facts) if self.faces else None,
            "sentences": _sentences(self.choice),
            "model": self.model,
        }
        return {**made, "sha256": _hash(made)}


def open_sight(choice: DweChoice) -> DweSight:
    """Open the models of a choice.

    Raises MissingWeights, MissingExtra, CorruptArtifact or BadInput if one cannot be used on this machine."""
    choice = replace(choice, detector=_portable(choice.detector), faces=_portable(choice.faces))
    if choice.model and choice.model.engine != "server":  # a server's model name may contain a /
        choice = replace(choice, model=replace(choice.model, weights=_portable(choice.model.weights)))
    return DweSight(
        choice=choice,
        objects=open_detector(choice.objects) if choice.objects else None,
        faces=open_detector(choice.faces) if choice.faces else None,
        model=_revision(choice),
    )


def sight_of_card(folder: Path, card: Mapping[str, Any]) -> DweSight:
    """Return the sight that the matcher in `folder` was trained with.

    A card written before choices existed has none, and means tiles.  Raises CorruptArtifact for a card that was
    changed; MissingWeights, MissingExtra or BadInput if what it names is missing here or differs."""
    if CARD not in card:
        return open_sight(_before_choices(folder, card))
    try:
        said = card[CARD]
        if said["sha256"] != _hash({name: value for name, value in said.items() if name != "sha256"}):
            raise ValueError("it was changed after training")
        choice = choice_from(said["choice"])
        trained = {name: said[name] for name in ("detector", "faces", "sentences", "model")}
    except (KeyError, TypeError, ValueError, AttributeError, LocalmelError) as error:
        raise CorruptArtifact(
            f"the card of {folder} does not say what the matcher sees ({error})",
            hint=shell_line(_TRAIN, note="a card is not changed by hand"),
        ) from None
    try:
        sight = open_sight(choice)
    except (MissingWeights, MissingExtra) as error:
        raise type(error)(f"{folder} looks at pictures by what is not here: {error.fact}", hint=error.hint) from None
    here = sight.for_card()
    for what, named in (("detector", choice.objects), ("faces", choice.faces)):
        if not same_boxes(here[what], trained[what]):
            raise BadInput(
                f"{folder} was trained with other bytes of {named} than lie here ({_short(trained[what])}, here "
                f"{_short(here[what])})",
                hint=shell_line("localmel weights list", note="put back what it was trained with, or train again"),
            )
    if here["model"] != trained["model"]:
        assert choice.model is not None
        raise BadInput(
            f"{folder} was trained with what another model said of pictures ({trained['model'][:12]}; "
            f"{choice.model.weights} is {here['model'][:12]} here)",
            hint=shell_line("localmel weights list", note="put back what it was trained with, or train again"),
        )
    if here["sentences"] != trained["sentences"]:
        raise BadInput(f"{folder} was trained with attributes that this version asks for in other words", hint=_TRAIN)
    return sight


def read_sight(folder: Path) -> DweSight:
    """Return the sight of a matcher's folder without reading its weights."""
    try:
        facts: Mapping[str, Any] = dict(json.loads((folder / FILE).read_text(encoding="utf-8"))["facts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptArtifact(f"{folder} has no whole card ({error})", hint=shell_line("ls", folder)) from None
    return sight_of_card(folder, facts)


def _before_choices(folder: Path, card: Mapping[str, Any]) -> DweChoice:
    run = card.get("run")
    pictures = run.get("pictures") if isinstance(run, Mapping) else None
    if pictures not in (None, {"detector": {"detector": "tiles 1"}, "attributes": None}):
        raise BadInput(f"{folder} was trained with a detector or attributes that its card does not name", hint=_TRAIN)
    return DweChoice()


def _portable(detector: str) -> str:
    """Return a detector with absolute paths, so that it means the same from any working directory."""
    parts = [part.strip() for part in detector.split("+")]
    return "+".join(str(Path(part).expanduser().absolute()) if "/" in part else part for part in parts)


def _revision(choice: DweChoice) -> str:
    """Return the revision of the vision-language model without loading it; empty if none is used."""
    if choice.attributes != VLM or choice.model is None:
        return ""
    with open_model(choice.model) as engine:
        return engine.facts().revision


def _sentences(choice: DweChoice) -> str:
    """Return a hash of all questions and choices; empty if no attributes are asked."""
    settings = choice.attribute_settings
    return _hash([[one.name, one.question, dict(one.choices)] for one in settings.attributes]) if settings else ""


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _short(facts: Mapping[str, str] | None) -> str:
    return _hash(facts and dict(facts))[:12]
