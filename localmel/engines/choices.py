"""A closed choice as tokens, so that the probability of each choice can be told exactly.

In: the tokens of each choice.  Out: after which tokens the model has to be asked for which next ones, and from its
answers a log probability for each choice: the sum over its tokens.  Where one choice begins another ("1", "10"), the
end of the answer counts as a token of each.  Knows no model; engines differ only in how they ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from localmel.errors import BadInput

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceTokens:
    """The choices of one request."""

    tokens: Mapping[str, Tokens]
    "For each choice, in order; the end of the answer included where it counts."

    @property
    def longest(self) -> int:
        """Tokens that the longest choice takes."""
        return max(len(tokens) for tokens in self.tokens.values())

    @property
    def lengths(self) -> dict[str, int]:
        """Tokens that each choice takes."""
        return {choice: len(tokens) for choice, tokens in self.tokens.items()}

    def asked_after(self) -> dict[Tokens, tuple[int, ...]]:
        """Each beginning that some choice goes on from -> the tokens with which choices go on; () is the prompt's end.

        Shorter beginnings come first."""
        after: dict[Tokens, dict[int, None]] = {}
        for tokens in self.tokens.values():
            for place, token in enumerate(tokens):
                after.setdefault(tokens[:place], {})[token] = None
        return {beginning: tuple(after[beginning]) for beginning in sorted(after, key=len)}

    def logprobs(self, told: Mapping[Tokens, Mapping[int, float]]) -> dict[str, float]:
        """`told[beginning][token]` is the log probability of that next token.  Not yet normalised."""
        return {
            choice: sum(told[tokens[:place]][token] for place, token in enumerate(tokens))
            for choice, tokens in self.tokens.items()
        }


def choice_tokens(choices: Sequence[str], encode: Callable[[str], Sequence[int]], end: int) -> ChoiceTokens:
    """`encode` gives the tokens of a text without any around it; `end` is the token that ends an answer.

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
