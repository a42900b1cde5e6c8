"""Look up kinds of matchers by name, and load trained ones from folders.

In: a name, or a folder.  Out: a kind, or a trained matcher of any kind.  A new kind is a folder with a subclass of
`kind.MatcherKind` and one line in `_KINDS`.  Loads neither torch nor numpy until a kind is requested."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localmel.errors import BadInput, CorruptArtifact, MissingWeights, UsageError, shell_line
from localmel.matchers.dwe.choice import DweChoice
from localmel.matchers.m3el.options import M3elOptions
from localmel.matchers.options import MatcherOptions

if TYPE_CHECKING:  # `--help` names the kinds, and must not load numpy
    from localmel.encode.registry import Encoders
    from localmel.kb.store import KnowledgeBase
    from localmel.matchers.kind import Indexed, KbSearch, MatcherKind
    from localmel.matchers.trained import MatcherCard, TrainedMatcher

KGMEL, DWE = "kgmel", "dwe"

_KINDS: Mapping[str, tuple[str, type[MatcherOptions]]] = {
    KGMEL: ("localmel.matchers.kgmel.kind:KgmelKind", MatcherOptions),
    "m3el": ("localmel.matchers.m3el.kind:M3elKind", M3elOptions),
    DWE: ("localmel.matchers.dwe.kind:DweKind", DweChoice),
}
"Module of each kind, and its options."

MATCHERS = tuple(_KINDS)
"Valid values of `--matcher`."


def options_of(name: str) -> type[MatcherOptions]:
    """Return the options class of a kind.  Raises UsageError for an unknown kind."""
    _check(name)
    return _KINDS[name][1]


def _check(name: str) -> None:
    if name not in _KINDS:
        raise UsageError(f"there is no matcher {name!r}; there are {', '.join(_KINDS)}", hint=f"--matcher {KGMEL}")


def matcher_kind(name: str) -> MatcherKind:
    """Return the kind of that name.  Raises UsageError for an unknown kind."""
    _check(name)
    module, _, made = _KINDS[name][0].partition(":")
    kind: MatcherKind = getattr(import_module(module), made)()
    return kind


def kind_of(matcher: TrainedMatcher[Any]) -> MatcherKind:
    """Return the kind of a trained matcher, with the options it was trained with.  Raises the errors of `bound_to`."""
    return matcher_kind(matcher.kind).bound_to(matcher)


def kind_in(folder: Path) -> str:
    """Return the kind of the matcher in a folder.  Raises MissingWeights, BadInput or CorruptArtifact."""
    from localmel.matchers.kgmel.folder import CARD as NETWORK_CARD
    from localmel.matchers.trained import CARD

    if not folder.is_dir():
        raise MissingWeights(
            f"there is no matcher at {folder.absolute()}: it is trained on your own mentions",
            hint="localmel train DATA --kb KB --matcher m3el --out runs/NAME   # then runs/NAME/seed-0/network",
        )
    if trained := sorted(folder.glob("seed-*/network")):
        raise BadInput(
            f"{folder} is a training run; its matchers are in folders below it", hint=f"--matcher {trained[0]}"
        )
    if (folder / NETWORK_CARD).is_file():
        return KGMEL
    try:
        kind = json.loads((folder / CARD).read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptArtifact(f"{folder} holds no matcher ({error})", hint=shell_line("ls", folder)) from None
    if kind not in _KINDS:
        raise CorruptArtifact(
            f"{folder} holds a matcher of kind {kind!r}; this version has {', '.join(_KINDS)}",
            hint=shell_line("ls", folder),
        )
    return str(kind)


def load_matcher(folder: Path) -> TrainedMatcher[Any]:
    """Load a trained matcher of any kind.  Raises the errors of `kind_in`, and CorruptArtifact for damage."""
    return matcher_kind(kind_in(folder)).load(folder)


def read_card(folder: Path) -> MatcherCard:
    """Return the card in a matcher's folder, without torch.  Raises the errors of `kind_in`, and CorruptArtifact for
    damage."""
    return matcher_kind(kind_in(folder)).read_card(folder)


def open_search(kb: KnowledgeBase, matcher: TrainedMatcher[Any], encoders: Encoders, index: str) -> KbSearch:
    """Open a trained matcher's search of a KB.  Raises BadInput, with the command, if the KB is not ready."""
    return kind_of(matcher).search(kb, matcher, encoders, index)


def index_matcher(kb: KnowledgeBase, matcher: TrainedMatcher[Any], encoders: Encoders, index: str) -> Indexed:
    """Make a KB ready for a trained matcher; existing valid parts are reused."""
    return kind_of(matcher).index(kb, matcher, encoders, index)


def ensure_indexed(kb: KnowledgeBase, matcher: TrainedMatcher[Any], encoders: Encoders, index: str) -> None:
    """Make a KB ready for a trained matcher, unless a search over it opens."""
    try:
        open_search(kb, matcher, encoders, index)
    except (BadInput, CorruptArtifact):
        index_matcher(kb, matcher, encoders, index)
