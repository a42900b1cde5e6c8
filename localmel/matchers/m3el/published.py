"""Load weights named as in M3EL's published code.

In: tensors by name.  Out: a network in the published form, with its defects (docs/matchers.md).  Refuses
unknown names: the tensors left out here affect no score of the published code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from localmel.errors import CorruptArtifact
from localmel.matchers.m3el.network import M3el, M3elSettings

_PUBLISHED = {
    "text_norm": "text_cls_layernorm",
    "words_norm": "text_tokens_layernorm",
    "image_norm": "image_cls_layernorm",
    "patches_norm": "image_tokens_layernorm",
    **{
        f"{ours}.{layer}": f"{theirs}.{name}"
        for ours, theirs in (("words", "timm"), ("patches", "iimm"))
        for layer, name in (
            ("query", "fc_query"), ("key", "fc_key"), ("value", "fc_value"), ("aim", "fc_cls"), ("norm", "layer_norm"),
        )
    },
    **{
        f"cross.{ours}.{layer}": f"{theirs}.{name}"
        for ours, theirs in (("one", "cmm"), ("both", "cmmb"))
        for layer, name in (
            ("text_in", "text_fc"), ("image_in", "image_fc"), ("keep", "gate_fc"), ("norm", "gate_layer_norm"),
            ("ask.turn", "match_module.trans_linear"),
        )
    },
    "cross.one.mix": "cmm.fusion_module.linear",
}  # fmt: skip
"Published name of each of our layers; each has a weight and a bias."
_WITHOUT_EFFECT = ("mclet_", "scale_", "text_fc.", "image_fc.", "weight_cl_loss.")
"Prefixes of names that no score of the published code depends on."
_ALL_ONE = "multi_head_module.weight"
"Weights of the pooled means, which stay 1."


def published_names() -> dict[str, str]:
    """Return the published name of each tensor, by our name."""
    ends = (".weight", ".bias")
    return {ours + end: theirs + end for ours, theirs in _PUBLISHED.items() for end in ends}


def from_published(weights: Mapping[str, Tensor], **constants: Any) -> M3el:
    """Return a network in the published form.  `constants` are settings that the weights do not hold (both_ways).

    Pictures are expected as the published encoder projects them, whole and patches with the same length.
    Raises CorruptArtifact if a tensor is missing, left over, not finite, or has another shape."""
    try:
        found = {ours: weights[theirs] for ours, theirs in published_names().items()}
        width, text_width = found["words.aim.weight"].shape
        word_width = found["words.query.weight"].shape[1]
    except KeyError as error:
        raise CorruptArtifact(f"this is no checkpoint of the published M3EL matcher: {error} is missing") from None
    except (IndexError, ValueError):
        raise CorruptArtifact("the checkpoint has a vector where the published M3EL matcher has a matrix") from None
    left = [name for name in set(weights) - set(published_names().values()) if not _is_idle(name, weights[name])]
    if left:
        raise CorruptArtifact(f"the checkpoint holds tensors that are not known: {', '.join(sorted(left))}")
    network = M3el(
        M3elSettings(
            text_width=text_width,
            word_width=word_width,
            image_width=width,
            patch_width=width,
            width=width,
            published=True,
            **constants,
        )
    )
    state = network.state_dict()
    if wrong := [name for name, value in found.items() if state[name].shape != value.shape]:
        raise CorruptArtifact(f"the checkpoint's tensors have other shapes than each other: {', '.join(sorted(wrong))}")
    if wrong := [name for name, value in found.items() if not torch.isfinite(value).all()]:
        raise CorruptArtifact(f"the checkpoint's tensors hold values that are no numbers: {', '.join(sorted(wrong))}")
    network.load_state_dict(state | found)
    return network


def _is_idle(name: str, value: Tensor) -> bool:
    for prefix in ("cmm.", "cmmb."):
        name = name.removeprefix(prefix)
    return name.startswith(_WITHOUT_EFFECT) or (name == _ALL_ONE and bool((value == 1).all()))
