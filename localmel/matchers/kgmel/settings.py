"""Define the shape of the fusion network and the constants of its attention, which are saved with its weights.

Imports no torch, so that the encoder for interactive use can start without it."""

from __future__ import annotations

from dataclasses import dataclass

from localmel.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionSettings:
    """The shape of the network and the constants of its attention."""

    text_width: int
    "Length of a text vector."
    triple_width: int
    "Length of the vector of a relation or of a tail."
    image_width: int = 0
    "Length of an image vector; 0 where no image space is used."
    width: int = 512
    "Length of the output vectors."
    image_share: float = 0.6
    "Weight of the image against the text when triples are attended to (beta); without an image space the text has 1."
    temperature: float = 0.1
    "Divides attention scores before the softmax; lower keeps fewer triples."
    kept_triples: int = 5
    "Number of triples of highest weight that are summed (p)."
    dropout: float = 0.2
    "Share of the hidden values of each triple that training sets to zero, rounded to 1/256."
    gate: bool = True
    "Whether text and image each pass a gate; otherwise they are added unchanged."

    def __post_init__(self) -> None:
        low = {name: getattr(self, name) for name in ("text_width", "triple_width", "width", "kept_triples")}
        if wrong := {name: value for name, value in low.items() if value < 1}:
            raise BadInput(f"a fusion network cannot have {wrong}; each is at least 1")
        if not (
            self.temperature > 0 and 0 <= self.image_share <= 1 and 0 <= self.dropout < 1 and self.image_width >= 0
        ):
            raise BadInput(
                f"temperature {self.temperature}, image_share {self.image_share}, dropout {self.dropout} or "
                f"image_width {self.image_width} is out of its range"
            )
