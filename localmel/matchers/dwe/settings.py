"""The shape of DWE+'s network and which of its parts are used: what is saved beside its weights.  Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass

from localmel.errors import BadInput

OF_TEXTS = ("name", "text", "attributes", "identity", "written")
"Parts whose vectors are those of texts ..."
OF_PICTURES = ("image", "objects", "faces")
"... and of pictures; `words` are vectors of single words."
SWITCHES = ("text", "words", "image", "objects", "faces", "attributes", "identity", "written")
"What can be switched off: parts of a mention, and an entity's written text.  Its static text and pictures stay."


@dataclass(frozen=True, slots=True, kw_only=True)
class DweSettings:
    """The shape of the network."""

    text_width: int
    "Length of a text's vector: of names, sentences, descriptions, attributes and identities."
    word_width: int = 0
    "Length of the vector of one word within its text; 0 where words are not looked at."
    image_width: int = 0
    "Length of the vector of a picture, of an object and of a face; 0 where no pictures are seen."
    width: int = 384
    "Length of the vectors that are compared.  As long as those of texts, the network begins as their cosine."
    heads: int = 8
    "In so many parts the mention asks."
    dropout: float = 0.4
    "Share of the projected values that are left out in training."
    without: tuple[str, ...] = ()
    "Parts that are switched off, out of `SWITCHES`."

    def __post_init__(self) -> None:
        low = {name: value for name in ("text_width", "width", "heads") if (value := getattr(self, name)) < 1}
        low |= {name: value for name in ("word_width", "image_width") if (value := getattr(self, name)) < 0}
        if low:
            raise BadInput(f"DWE+ cannot have {low}; texts, width and heads are at least 1, the others at least 0")
        if self.width % self.heads:
            raise BadInput(f"DWE+ cannot split a width of {self.width} into {self.heads} heads")
        if not 0 <= self.dropout < 1:
            raise BadInput(f"DWE+ leaves out a share of {self.dropout}; it is at least 0 and below 1")
        if unknown := sorted(set(self.without) - set(SWITCHES)):
            raise BadInput(f"DWE+ has no part {', '.join(unknown)}; its parts are {', '.join(SWITCHES)}")

    def width_of(self, part: str) -> int:
        """Length of the vectors that come in as this part; 0 where it is not looked at.  Raises BadInput."""
        if part not in (*OF_TEXTS, *OF_PICTURES, "words"):
            known = ", ".join((*OF_TEXTS, "words", *OF_PICTURES))
            raise BadInput(f"DWE+ has no part {part!r}; it takes {known}")
        if part == "words":
            return self.word_width
        return self.image_width if part in OF_PICTURES else self.text_width
