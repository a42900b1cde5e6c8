"""Choose the inputs of DWE+: set at training time, stored in the matcher's card, and read from there afterwards.

In: a user's choices, or a card.  Out: one frozen choice, checked, and which parts of the network it uses.  Opens and
reads nothing; `sight.py` does that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

from localmel.errors import UsageError
from localmel.matchers.options import Flag, MatcherOptions
from localmel.settings import EngineSettings

if TYPE_CHECKING:
    from localmel.see.attributes import AttributeSettings
    from localmel.see.identity import IdentitySettings
    from localmel.settings import Profile

TILES, NONE = "tiles", "none"
CLIP, VLM = "clip", "vlm"
ABSTRACT, WRITTEN = "abstract", "written"
TEXTS = (ABSTRACT, WRITTEN)
"Texts about entities in addition to their descriptions, as `localmel kb texts` names them."


@dataclass(frozen=True, slots=True, kw_only=True)
class DweChoice(MatcherOptions):
    """The optional inputs besides names, sentences, words and whole pictures, and the models that find them."""

    detector: Annotated[
        str, Flag("--detector", "dwe: what cuts objects out: tiles, faces, weights or a path, with +; or none.")
    ] = ""
    "Detector that cuts objects out of pictures, as `open_detector` takes it; `none` for no objects, empty for tiles."
    faces: Annotated[
        str, Flag("--faces", "dwe: faces as a part of their own, found by: faces (OpenCV), or weights.")
    ] = ""
    "Detector of faces, used as a separate part: `faces` (OpenCV's cascade) or weights; empty for no faces."
    attributes: Annotated[
        str, Flag("--attributes", "dwe: what pictures show, as clip or the profile's vlm says it.")
    ] = ""
    "Model that names what a picture shows: `clip` or `vlm`; empty for no attributes."
    asked: Annotated[
        tuple[str, ...], Flag("--ask", "dwe: ask for this attribute (repeatable); else all but those off.")
    ] = ()
    "Attributes to ask for, by their names in attributes.toml; empty for all that are not switched off there."
    least: float = 0.5
    "Share among the attribute's choices that CLIP's answer must exceed to count."
    model: EngineSettings | None = None
    "The vision-language model used by `vlm`."
    identity: Annotated[
        bool, Flag("--identity", "dwe: look for the nearest portraits among the KB's own pictures.")
    ] = False
    "Whether to look for the nearest portraits in the KB: by faces if a face detector is set, else by whole pictures."
    threshold: Annotated[
        float, Flag("--identity-threshold", "dwe: cosine a portrait must exceed; 0.5 unless given.")
    ] = 0.5
    "Cosine that a portrait must exceed."
    written: Annotated[
        tuple[str, ...], Flag("--written", "dwe: beside an entity's text: written, abstract (repeatable).")
    ] = ()
    "Texts from TEXTS used in addition to an entity's own; several are averaged."
    written_by: Annotated[str, Flag("--written-by", "dwe: whose written texts, where several models wrote.")] = ""
    "Model whose texts `written` uses, if several models wrote some."

    def __post_init__(self) -> None:
        if self.faces == NONE or (self.detector != NONE and NONE in self.detector.split("+")):
            raise UsageError(f"{NONE!r} finds nothing: no faces, nothing beside others", hint=f"--detector {NONE}")
        if self.attributes not in ("", CLIP, VLM):
            fact = f"{self.attributes!r} says nothing of pictures; {CLIP} and {VLM} do"
            raise UsageError(fact, hint=f"--attributes {CLIP}")
        if self.asked and not self.attributes:
            fact = f"nobody is asked for {', '.join(self.asked)}"
            raise UsageError(fact, hint=f"--attributes {CLIP}, or {VLM}")
        if (self.model is not None) != (self.attributes == VLM):
            raise UsageError(
                f"a model is named where {self.attributes or 'nobody'} is asked", hint=f"--attributes {VLM}"
            )
        if self.model and self.model.allow_remote:
            fact = f"a matcher that is handed on sends no pictures to {self.model.url}: its model runs on this machine"
            raise UsageError(fact, hint="--attributes clip, or a profile without allow_remote")
        unknown = [one for one in self.written if one not in TEXTS]
        if unknown or len(set(self.written)) < len(self.written):
            raise UsageError(
                f"there are no texts {', '.join(unknown or self.written)}; there are {' and '.join(TEXTS)}, each once",
                hint=f"--written {WRITTEN}",
            )
        if self.written_by and WRITTEN not in self.written:
            raise UsageError(f"texts of {self.written_by!r} are not looked at", hint=f"--written {WRITTEN}")
        if not -1 <= self.threshold <= 1:
            fact = f"a likeness above {self.threshold} cannot be looked for; cosines lie between -1 and 1"
            raise UsageError(fact, hint="--identity-threshold 0.5")
        settings = self.attribute_settings
        silent = [one.name for one in settings.attributes if not one.choices] if settings else []
        if self.attributes == CLIP and (unheard := [name for name in silent if name in self.asked]):
            fact = f"CLIP cannot say {', '.join(unheard)}: there is nothing to choose from"
            raise UsageError(fact, hint=f"--attributes {VLM}")

    @classmethod
    def typed(cls, given: Mapping[str, Any], profile: Callable[[], Profile]) -> DweChoice:
        """Return the choice, with the profile's vision-language model if attributes come from it."""
        if empty := [flag.name for name, _, flag in cls.flags() if given.get(name) in ("", ())]:
            raise UsageError(f"{', '.join(empty)} names nothing", hint="leave it out")
        if "threshold" in given and not given.get("identity"):
            threshold = given["threshold"]
            raise UsageError(
                f"no portraits are looked for above {threshold}", hint=f"--identity-threshold {threshold} --identity"
            )
        if given.get("attributes") != VLM:
            return cls(**given)
        if not (model := profile().generate.model).engine:
            raise UsageError(
                f"profile {profile().name!r} has no vision-language model to ask",
                hint="--attributes clip, or --profile paper",
            )
        return cls(**given, model=model)

    @property
    def objects(self) -> str:
        """Return the object detector; empty if none is used."""
        return "" if self.detector == NONE else self.detector or TILES

    @property
    def attribute_settings(self) -> AttributeSettings | None:
        """Return the settings of the attributes asked of pictures, or None.  Raises UsageError for an unknown name."""
        from localmel.see.attributes import AttributeSettings

        return AttributeSettings(asked=self.asked, least=self.least) if self.attributes else None

    @property
    def identity_settings(self) -> IdentitySettings:
        """Return the settings that decide whether and when a portrait counts."""
        from localmel.see.identity import IdentitySettings

        return IdentitySettings(on=self.identity, threshold=self.threshold)

    @property
    def pictured(self) -> tuple[str, ...]:
        """Return the chosen options that need pictures."""
        chosen = {
            "--detector": self.detector,
            "--faces": self.faces,
            "--attributes": self.attributes,
            "--identity": self.identity,
        }
        return tuple(option for option, value in chosen.items() if value)

    def without(self, *, pictures: bool) -> tuple[str, ...]:
        """Return the parts of the network that stay unused.  pictures: whether pictures are used."""
        used = {
            "faces": pictures and self.faces,
            "identity": pictures and self.identity,
            "written": self.written,
            "attributes": pictures and self.attributes,
            "objects": self.objects,
        }
        return tuple(part for part, there in used.items() if not there)

    def check_pictures(self, *, seen: bool, encoder: str) -> None:
        """Raise UsageError if an option needs pictures and none are used.  encoder: the name of the encoder."""
        if self.pictured and not seen:
            raise UsageError(
                f"{', '.join(self.pictured)}: no pictures are seen in this training, which encodes with {encoder}",
                hint='--profile with a CLIP model ([encode] model = "clip-vit-b-32"), and no --without image',
            )

    def as_json(self) -> dict[str, Any]:
        """Return the choice as JSON values for a card."""
        made = asdict(self)
        return {**made, "asked": list(self.asked), "written": list(self.written)}


def choice_from(given: Mapping[str, Any]) -> DweChoice:
    """Return the choice stored in a card.  Raises ValueError, TypeError or UsageError if it is not a valid one."""
    if unknown := set(given) - {field.name for field in fields(DweChoice)}:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    model = given.get("model")
    return DweChoice(**{**given, **lists, "model": EngineSettings(**model) if model else None})
