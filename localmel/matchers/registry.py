"""The kinds of matchers by name, and the folders of trained ones.

In: a name, or a folder.  Out: a kind, or a trained matcher of any kind.  A new kind is a class below
`kind.MatcherKind` and one line in `_KINDS`.  Loads no torch until a matcher that needs it is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from localmel.encode.registry import Encoders
from localmel.errors import BadInput, CorruptArtifact, MissingWeights, UsageError, shell_line
from localmel.kb.store import KnowledgeBase
from localmel.matchers.dwe.choice import DweChoice
from localmel.matchers.kgmel.folder import CARD as NETWORK_CARD
from localmel.matchers.kind import Indexed, KbSearch, MatcherKind
from localmel.matchers.trained import CARD, MatcherCard, TrainedMatcher
from localmel.matchers.two_step_kind import TwoStepKind

KGMEL, DWE = "kgmel", "dwe"


def _kgmel() -> MatcherKind:
    from localmel.matchers.kgmel.kind import KgmelKind

    return KgmelKind()


def _m3el() -> TwoStepKind:
    from localmel.matchers.m3el.kind import M3elKind

    return M3elKind()


def _dwe() -> TwoStepKind:
    from localmel.matchers.dwe.kind import DweKind

    return DweKind()


_KINDS: Mapping[str, Callable[[], MatcherKind]] = {KGMEL: _kgmel, "m3el": _m3el, DWE: _dwe}

MATCHERS = tuple(_KINDS)
"All that `--matcher` can name."


def dwe_seeing(choice: DweChoice) -> TwoStepKind:
    """DWE+ that sees what was chosen.  Raises where a detector or model cannot be used here, as `open_sight`."""
    from localmel.matchers.dwe.kind import DweKind
    from localmel.matchers.dwe.sight import open_sight

    return DweKind(open_sight(choice))


def matcher_kind(name: str) -> MatcherKind:
    """Return the kind of that name.  Raises UsageError for an unknown one."""
    if name not in _KINDS:
        fact = f"there is no matcher {name!r}; there are {', '.join(_KINDS)}"
        raise UsageError(fact, hint=f"--matcher {KGMEL}")
    return _KINDS[name]()


def kind_of(matcher: TrainedMatcher[Any]) -> MatcherKind:
    """Return the kind of a trained matcher, with the choices it was trained with.  Raises as `bound_to`."""
    return matcher_kind(matcher.kind).bound_to(matcher)


def kind_in(folder: Path) -> str:
    """Return the kind of the matcher in a folder.  Raises MissingWeights, BadInput or CorruptArtifact."""
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
    """Load a trained matcher of any kind.  Raises as `kind_in`, and CorruptArtifact for damage."""
    return matcher_kind(kind_in(folder)).load(folder)


def read_card(folder: Path) -> MatcherCard:
    """Read what a folder says of its matcher, without torch.  Raises as `kind_in`, and CorruptArtifact for damage."""
    return matcher_kind(kind_in(folder)).read_card(folder)


def open_search(kb: KnowledgeBase, matcher: TrainedMatcher[Any], encoders: Encoders, index: str) -> KbSearch:
    """Open the search of a KB by a trained matcher.  Raises BadInput, with the command, where the KB is not ready."""
    return kind_of(matcher).search(kb, matcher, encoders, index)


def index_matcher(kb: KnowledgeBase, matcher: TrainedMatcher[Any], encoders: Encoders, index: str) -> Indexed:
    """Make a KB ready for a trained matcher; what exists and fits is not made again."""
    return kind_of(matcher).index(kb, matcher, encoders, index)


def ensure_indexed(kb: KnowledgeBase, matcher: TrainedMatcher[Any], encoders: Encoders, index: str) -> None:
    """Make a KB ready for a trained matcher, unless a search over it opens."""
    try:
        open_search(kb, matcher, encoders, index)
    except (BadInput, CorruptArtifact):
        index_matcher(kb, matcher, encoders, index)
