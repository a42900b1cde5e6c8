"""localmel links the names in a captioned image to a knowledge base, entirely on this machine.

    from localmel import Linker
    answer = Linker().link("photo.jpg", "Jordan dunks on Barkley")

Names are imported on first use, so that importing localmel costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localmel.captions import Caption, LinkedCaption, LinkedMention
    from localmel.errors import LocalmelError
    from localmel.kb.locate import open_kb
    from localmel.kb.store import KnowledgeBase
    from localmel.linker import Linker
    from localmel.records import Span

__all__ = ["Caption", "KnowledgeBase", "LinkedCaption", "LinkedMention", "Linker", "LocalmelError", "Span", "open_kb"]

_HOMES = {
    "Caption": "localmel.captions",
    "LinkedCaption": "localmel.captions",
    "LinkedMention": "localmel.captions",
    "KnowledgeBase": "localmel.kb.store",
    "LocalmelError": "localmel.errors",
    "Span": "localmel.records",
    "open_kb": "localmel.kb.locate",
}


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'localmel' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "localmel.linker")), name)
