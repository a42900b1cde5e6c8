"""The shape of M3EL's network and which of its parts are used: what is saved beside its weights.  Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass

from localmel.errors import BadInput

PARTS = ("text", "words", "image", "patches", "cross")
"What can be switched off: whole texts, words, whole pictures, patches, and what words and patches say together."


@dataclass(frozen=True, slots=True, kw_only=True)
class M3elSettings:
    """The shape of the network."""

    text_width: int
    "Length of a text's vector."
    word_width: int
    "Length of the vector of one word within its text."
    image_width: int = 0
    "Length of a picture's vector; 0 where no pictures are seen."
    patch_width: int = 0
    "Length of the vector of one patch of a picture."
    width: int = 96
    "Length of the vectors that are compared, but for that of a whole text."
    both_ways: bool = True
    "Two cross-modal vectors, one begun at the text and one at the picture; else one, begun at the text."
    temperatures: tuple[float, ...] = (2.0, 2.5, 3.5, 4.5)
    "Each makes one of the means over tokens that are averaged; higher is nearer to the highest value."
    adapter: bool = True
    "A learnt matrix before whole texts, begun as identity: it stands in for the training of the encoder."
    estimate: bool = True
    "Put an estimate of the local scores into the vectors that are searched first (see `M3el.mentions`)."
    without: tuple[str, ...] = ()
    "Parts that are switched off, out of `PARTS`."
    published: bool = False
    "The published arithmetic with its defects (docs/matchers.md): for comparison, not for use."

    def __post_init__(self) -> None:
        least = {"text_width": self.text_width, "word_width": self.word_width, "width": self.width}
        if self.image_width or self.patch_width:
            least |= {"image_width": self.image_width, "patch_width": self.patch_width}
        if low := {name: value for name, value in least.items() if value < 1}:
            raise BadInput(f"M3EL cannot have {low}; each is at least 1, and pictures need both widths or none")
        if unknown := sorted(set(self.without) - set(PARTS)):
            raise BadInput(f"M3EL has no part {', '.join(unknown)}; its parts are {', '.join(PARTS)}")
        if not self.temperatures or min(self.temperatures) <= 0:
            raise BadInput(f"temperatures are {self.temperatures}; at least one, and each above 0")
        if not self.used:
            raise BadInput(f"nothing is left of M3EL without {', '.join(self.without)}")

    @property
    def used(self) -> tuple[str, ...]:
        """The parts that are looked at."""
        there = PARTS if self.image_width else PARTS[:2]
        return tuple(part for part in there if part not in self.without)
