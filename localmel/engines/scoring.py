"""How probable each choice is, exactly: its tokens are put behind the prompt and the model is asked about each.

In: a batch of prompts, and the choices of each as tokens.  Out: a log probability for each choice.  A prompt is read
once; its keys and values are then shared by all its choices.  Where every choice is one token, nothing more is read."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localmel.engines.choices import ChoiceTokens, Tokens

if TYPE_CHECKING:
    from torch import Tensor

Told = dict[Tokens, dict[int, float]]


def choice_logprobs(
    model: Any, inputs: Mapping[str, Tensor], choices: Sequence[ChoiceTokens], *, at_once: int
) -> list[dict[str, float]]:
    """`inputs`: one left-padded batch, as the model takes it; `choices`: of each row.  Not yet normalised."""
    import torch

    with torch.inference_mode():
        first = model(**inputs, **_positions(inputs), use_cache=True, logits_to_keep=1)
        logprobs = first.logits[:, -1].float().log_softmax(-1)
        scored = []
        for row, its in enumerate(choices):
            told: Told = {(): {token: float(logprobs[row, token]) for token in its.asked_after()[()]}}
            if its.longest > 1:
                read = int(inputs["attention_mask"][row].sum()) + _shift(model, inputs, row)
                prefix = _Prefix(inputs["attention_mask"][row], first.past_key_values, row, read)
                told |= _told_later(model, prefix, its, at_once)
            scored.append(its.logprobs(told))
    return scored


@dataclass(frozen=True)
class _Prefix:
    """A prompt that was read."""

    mask: Tensor  # (length,) 1 where a token is real
    cache: Any
    "Keys and values of the whole batch."
    row: int
    next_place: int
    "Of the first token after it."

    def copies(self, n: int) -> Any:
        """A cache with n rows, all of them this prompt; the batch's own stays as it is."""
        import torch

        shared = copy.copy(self.cache)
        shared.layers = [copy.copy(layer) for layer in self.cache.layers]
        shared.batch_select_indices(torch.full((n,), self.row, device=self.mask.device))
        return shared


def _positions(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Places counted from the first real token; a model that lays pictures out in space counts them itself."""
    if "image_grid_thw" in inputs:
        return {}
    return {"position_ids": (inputs["attention_mask"].long().cumsum(-1) - 1).clamp(min=0)}


def _shift(model: Any, inputs: Mapping[str, Tensor], row: int) -> int:
    """What such a model counts more (or less) than there are tokens."""
    deltas = getattr(getattr(model, "model", None), "rope_deltas", None)
    return 0 if deltas is None or "image_grid_thw" not in inputs else int(deltas[row])


def _told_later(model: Any, prefix: _Prefix, choices: ChoiceTokens, at_once: int) -> Told:
    """What the model says after each beginning of a choice but the empty one."""
    import torch

    wanted, device = choices.asked_after(), prefix.mask.device
    beginnings = sorted({tokens[:-1] for tokens in choices.tokens.values() if len(tokens) > 1})
    told: Told = {}
    for start in range(0, len(beginnings), at_once):
        some = beginnings[start : start + at_once]
        n_rows, longest = len(some), max(map(len, some))
        tokens = torch.zeros((n_rows, longest), dtype=torch.long)
        real = torch.zeros((n_rows, longest), dtype=prefix.mask.dtype)
        for place, beginning in enumerate(some):
            tokens[place, : len(beginning)] = torch.tensor(beginning)
            real[place, : len(beginning)] = 1
        logits = model(
            input_ids=tokens.to(device),
            attention_mask=torch.cat([prefix.mask.expand(n_rows, -1), real.to(device)], dim=1),
            position_ids=(prefix.next_place + torch.arange(longest, device=device)).expand(n_rows, -1),
            past_key_values=prefix.copies(n_rows),
            use_cache=True,
        ).logits
        logprobs = logits.float().log_softmax(-1)
        for place, beginning in enumerate(some):
            for length in range(1, len(beginning) + 1):
                begun = beginning[:length]
                told[begun] = {token: float(logprobs[place, length - 1, token]) for token in wanted[begun]}
    return told
