"""A closed choice as tokens, and the exact probability of each choice.

In: the tokens of each choice.  Out: after which beginnings the model has to be asked for which next tokens, and from
its answers a log probability for each choice: the sum over its tokens.  Where one choice begins another ("1", "10"),
the end of the answer counts as a token of each.  `choice_logprobs` asks a transformers model: it reads each prompt
once and shares its keys and values among all choices; other engines ask in their own way."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from localmel.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

Tokens = tuple[int, ...]
NextLogprobs = dict[Tokens, dict[int, float]]
"Beginning of an answer -> next token -> its log probability."


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceTokens:
    """The choices of one request."""

    tokens: Mapping[str, Tokens]
    "The tokens of each choice, in order; with the end of the answer where it counts."

    @property
    def longest(self) -> int:
        """Tokens of the longest choice."""
        return max(len(tokens) for tokens in self.tokens.values())

    @property
    def lengths(self) -> dict[str, int]:
        """Tokens of each choice."""
        return {choice: len(tokens) for choice, tokens in self.tokens.items()}

    def asked_after(self) -> dict[Tokens, tuple[int, ...]]:
        """Return for each beginning that some choice continues the tokens that may follow; () is the prompt's end.

        Shorter beginnings come first.

            choices "1" = (5,) and "12" = (5, 6), 0 ends an answer:  {(): (5,), (5,): (0, 6), (5, 6): (0,)}"""
        after: dict[Tokens, dict[int, None]] = {}
        for tokens in self.tokens.values():
            for place, token in enumerate(tokens):
                after.setdefault(tokens[:place], {})[token] = None
        return {beginning: tuple(after[beginning]) for beginning in sorted(after, key=len)}

    def logprobs(self, found: Mapping[Tokens, Mapping[int, float]]) -> dict[str, float]:
        """Return the log probability of each choice, not yet normalised, from `found[beginning][next token]`."""
        return {
            choice: sum(found[tokens[:place]][token] for place, token in enumerate(tokens))
            for choice, tokens in self.tokens.items()
        }


def choice_tokens(choices: Sequence[str], encode: Callable[[str], Sequence[int]], end: int) -> ChoiceTokens:
    """Split choices into tokens.  `encode` adds no tokens around a text; `end` is the token that ends an answer.

    Raises BadInput where two choices are the same to the model."""
    tokens = {choice: tuple(encode(choice)) for choice in choices}
    if empty := [choice for choice, its in tokens.items() if not its]:
        raise BadInput(f"choice {empty[0]!r} has no tokens in this model's vocabulary")
    by_tokens: dict[Tokens, str] = {}
    for choice, its in tokens.items():
        if (other := by_tokens.setdefault(its, choice)) != choice:
            raise BadInput(f"choices {other!r} and {choice!r} have the same tokens in this model's vocabulary")
    ordered = sorted(tokens.values())
    if any(later[: len(one)] == one for one, later in pairwise(ordered)):
        tokens = {choice: (*its, end) for choice, its in tokens.items()}
    return ChoiceTokens(tokens=tokens)


# --- a transformers model -------------------------------------------------------------------------------------------


def choice_logprobs(
    model: Any, inputs: Mapping[str, Tensor], choices: Sequence[ChoiceTokens], *, at_once: int
) -> list[dict[str, float]]:
    """Return the log probability of each choice of each row, not yet normalised.

    `inputs` is one left-padded batch as the model takes it.  Where every choice is one token, only the prompts are
    read."""
    import torch

    with torch.inference_mode():
        first = model(**inputs, **_positions(inputs), use_cache=True, logits_to_keep=1)
        logprobs = first.logits[:, -1].float().log_softmax(-1)  # (rows, vocabulary)
        scored = []
        for row, its in enumerate(choices):
            found: NextLogprobs = {(): {token: float(logprobs[row, token]) for token in its.asked_after()[()]}}
            if its.longest > 1:
                read = int(inputs["attention_mask"][row].sum()) + _shift(model, inputs, row)
                prefix = _Prefix(inputs["attention_mask"][row], first.past_key_values, row, read)
                found |= _later_logprobs(model, prefix, its, at_once)
            scored.append(its.logprobs(found))
    return scored


@dataclass(frozen=True)
class _Prefix:
    """A prompt that the model has read."""

    mask: Tensor  # (length,) 1 where a token is real
    cache: Any
    "Keys and values of the whole batch."
    row: int
    next_place: int
    "Position of the first token after the prompt."

    def copies(self, n: int) -> Any:
        """Return a cache with n rows, all of them this prompt; the batch's own cache is not changed."""
        import torch

        shared = copy.copy(self.cache)
        shared.layers = [copy.copy(layer) for layer in self.cache.layers]
        shared.batch_select_indices(torch.full((n,), self.row, device=self.mask.device))
        return shared


def _positions(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return positions that count from the first real token; models that lay out pictures in space count themselves."""
    if "image_grid_thw" in inputs:
        return {}
    return {"position_ids": (inputs["attention_mask"].long().cumsum(-1) - 1).clamp(min=0)}


def _shift(model: Any, inputs: Mapping[str, Tensor], row: int) -> int:
    """Return how many positions such a model counts beyond its tokens (negative for fewer)."""
    deltas = getattr(getattr(model, "model", None), "rope_deltas", None)
    return 0 if deltas is None or "image_grid_thw" not in inputs else int(deltas[row])


def _later_logprobs(model: Any, prefix: _Prefix, choices: ChoiceTokens, at_once: int) -> NextLogprobs:
    """Return the log probabilities after each beginning of a choice but the empty one."""
    import torch

    wanted, device = choices.asked_after(), prefix.mask.device
    beginnings = sorted({tokens[:-1] for tokens in choices.tokens.values() if len(tokens) > 1})
    found: NextLogprobs = {}
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
        logprobs = logits.float().log_softmax(-1)  # (rows, longest, vocabulary)
        for place, beginning in enumerate(some):
            for length in range(1, len(beginning) + 1):
                begun = beginning[:length]
                found[begun] = {token: float(logprobs[place, length - 1, token]) for token in wanted[begun]}
    return found
