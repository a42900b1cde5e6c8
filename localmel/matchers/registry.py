"""The kinds of matchers that can be chosen by name, and what the product asks of each.

In: a name, or the folder of a trained one.  Out: its kind.  A new kind is a class like `m3el_kind.M3elKind` and one
line in `_KINDS`.  KGMEL's fusion network is none of them: it has its own folder, vectors and profile key; `--matcher
kgmel` means what is done without the option.  Loads no torch until a kind is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from localmel.errors import BadInput, CorruptArtifact, MissingWeights, UsageError, shell_line
from localmel.matchers.folder import CARD, MatcherFolder

if TYPE_CHECKING:
    from torch import Tensor, nn

    from localmel.encode.kb_images import KbImages
    from localmel.encode.kb_vectors import KbVectors
    from localmel.encode.registry import Encoders
    from localmel.encode.space import Space
    from localmel.kb.packed import PackedKb
    from localmel.kb.store import KnowledgeBase
    from localmel.matchers.dwe.choice import DweChoice
    from localmel.matchers.protocol import EntityFeatures
    from localmel.records import Mention
    from localmel.see.identity import Likeness

KGMEL, DWE = "kgmel", "dwe"
_NETWORK_CARD = "network.json"
"Of a fusion network."


class MatcherKind(Protocol):
    """What there is to know about a kind.  Networks are `Matcher`s and nn.Modules; features are the kind's own."""

    @property
    def name(self) -> str: ...

    def new(self, encoders: Encoders, *, width: int | None) -> nn.Module:
        """A network that nobody has trained, with weights drawn by torch, for what these encoders make.

        width: of what is compared; None takes the kind's own."""
        ...

    def facts(self, network: nn.Module) -> dict[str, Any]:
        """Its settings and those of its loss: what a run hangs on beside data and schedule."""
        ...

    def loss(
        self, network: nn.Module, mentions: Any, entities: Any, gold: Tensor, entity_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss, and the part of it that tells mentions' entities apart; both without axes.

        gold: (m,) row of each mention's entity among the n; entity_ids: (n,), the same where rows are one entity."""
        ...

    def without_pictures(self, given: Any, blind: Tensor) -> Any:
        """The same features, but rows where `blind` (b,) is true show no picture."""
        ...

    def of(self, matcher: MatcherFolder[Any]) -> MatcherKind:
        """This kind, seeing what the trained one in a folder was trained to see.

        Raises MissingWeights, MissingExtra, BadInput or CorruptArtifact where that is not to be had as it was."""
        return self

    def beside(self, kb: KnowledgeBase, packed: PackedKb, vectors: KbVectors, images: KbImages | None) -> MatcherKind:
        """This kind, with what of the KB mentions are held against before anything is scored.

        Raises BadInput where `index` was not run, or the KB has changed since."""
        return self

    def alike(self, given: Any) -> Sequence[Sequence[Likeness]]:
        """Of mentions whose features are given: the entities whose pictures are like theirs, to be shown.

        Nothing at all where they are not looked for."""
        return ()

    def state(self, kb: KnowledgeBase) -> dict[str, Any]:
        """What of the KB entities' features hang on, besides its own texts and pictures."""
        return {}

    def index(
        self, kb: KnowledgeBase, packed: PackedKb, encoders: Encoders, images: KbImages | None,
        ) -> int:  # fmt: skip
        """Make what `entities` wants beside the vectors of whole texts and pictures.  Returns how many were encoded."""
        ...

    def entities(
        self, kb: KnowledgeBase, packed: PackedKb, vectors: KbVectors, images: KbImages | None
    ) -> EntityFeatures[Any]:
        """Of a KB's entities.  Raises BadInput, with the command, where something was never made."""
        ...

    def mentions(
        self, mentions: Sequence[Mention], encoders: Encoders, *, folder: Path | None = None,
    ) -> EntityFeatures[Any]:  # fmt: skip
        """Of some mentions.  With a folder they are kept there, and taken from there the next time."""
        ...

    def save(
        self, folder: Path, network: nn.Module, text_space: Space, image_space: Space | None, facts: Mapping[str, Any]
    ) -> None:
        """See `save_matcher`."""
        ...

    def load(self, folder: Path) -> MatcherFolder[Any]:
        """See `read_matcher`."""
        ...


def _m3el() -> MatcherKind:
    from localmel.matchers.m3el.kind import M3elKind

    return M3elKind()


def _dwe() -> MatcherKind:
    from localmel.matchers.dwe.kind import DweKind

    return DweKind()


def dwe_seeing(choice: DweChoice) -> MatcherKind:
    """DWE+ that sees what was chosen.  Raises where a detector or model cannot be used here, as `open_sight`."""
    from localmel.matchers.dwe.kind import DweKind
    from localmel.matchers.dwe.sight import open_sight

    return DweKind(open_sight(choice))


_KINDS: Mapping[str, Callable[[], MatcherKind]] = {"m3el": _m3el, DWE: _dwe}

MATCHERS = (KGMEL, *_KINDS)
"All that `--matcher` can name."


def matcher_kind(name: str) -> MatcherKind:
    """Raises UsageError for an unknown one, and for kgmel."""
    if name not in _KINDS:
        fact = f"there is no matcher {name!r} beside {KGMEL}; there are {', '.join(_KINDS)}"
        raise UsageError(fact, hint=f"--matcher {next(iter(_KINDS))}")
    return _KINDS[name]()


def kind_of(matcher: MatcherFolder[Any]) -> MatcherKind:
    """The kind of a trained one.  Raises as `MatcherKind.of`."""
    return matcher_kind(matcher.kind).of(matcher)


def kind_in(folder: Path) -> str:
    """The kind of the matcher in a folder.  Raises MissingWeights, BadInput or CorruptArtifact where there is none."""
    if not folder.is_dir():
        raise MissingWeights(
            f"there is no matcher at {folder.absolute()}: it is trained on your own mentions",
            hint="localmel train DATA --kb KB --matcher m3el --out runs/NAME   # then runs/NAME/seed-0/network",
        )
    if trained := sorted(folder.glob("seed-*/network")):
        raise BadInput(f"{folder} is a training run; its matchers stand below it", hint=f"--matcher {trained[0]}")
    if (folder / _NETWORK_CARD).is_file():
        raise BadInput(
            f"{folder} holds a fusion network, which is no other matcher",
            hint=f'[retrieve] network = "{folder}" in a profile; localmel eval --network',
        )
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


def load_matcher(folder: Path) -> MatcherFolder[Any]:
    """Load a trained one of whatever kind.  Raises as `kind_in`, and CorruptArtifact for damage."""
    return matcher_kind(kind_in(folder)).load(folder)
