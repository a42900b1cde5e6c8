"""Decode a batch one step at a time: each row under its own schema, temperature, seed and budget.

In: the scores of the next token for every row.  Out: one token for every row, forced on `generate` of transformers.
A row ends at a token that ends answers or at its budget, and is handed out at once, while other rows are still being
written.  xgrammar enforces schemas, with the settings that vLLM uses: no free white space."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from localmel.engines.prompts import Prompt
from localmel.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """One request while it is being answered."""

    serial: int
    prompt: Prompt
    tokens: list[int] = field(default_factory=list)
    finish: str = ""
    "Empty while the row is written, then `stop`, `length` or `dropped`."
    first_token_seconds: float | None = None
    seconds: float = 0.0


class Grammars:
    """Compiles schemas, each once, for one vocabulary."""

    def __init__(self, tokenizer: Any, n_scores: int, stop_tokens: Sequence[int]) -> None:
        """Read the vocabulary.  `n_scores`: how many scores the model gives, which may exceed the number of tokens."""
        import xgrammar

        self._stop_tokens = list(stop_tokens)
        vocabulary = xgrammar.TokenizerInfo.from_huggingface(
            tokenizer, vocab_size=n_scores, stop_token_ids=self._stop_tokens
        )
        self._compiler = xgrammar.GrammarCompiler(vocabulary, max_threads=1)
        self._n_scores = n_scores

    def matcher(self, schema: Mapping[str, Any]) -> Any:
        """Return a matcher that follows one answer under a schema.  Raises BadInput for one that cannot be enforced."""
        import xgrammar

        try:
            compiled = self._compiler.compile_json_schema(
                json.dumps(schema, default=dict), any_whitespace=False, separators=(",", ":")
            )
        except (RuntimeError, ValueError) as error:
            raise BadInput(f"the answer's schema cannot be enforced: {error}") from None
        return xgrammar.GrammarMatcher(compiled, override_stop_tokens=self._stop_tokens)

    def mask(self, n_rows: int) -> Any:
        """Return a bit for every score of every row."""
        import xgrammar

        return xgrammar.allocate_token_bitmask(n_rows, self._n_scores)


class Decoding:
    """The logits processor and the stopping criterion of one batch; `generate` calls both at every step."""

    def __init__(
        self,
        rows: Sequence[Row],
        matchers: Mapping[int, Any],
        grammars: Grammars,
        *,
        stop_tokens: Sequence[int],
        pad_token: int,
        n_tokens: int,
        on_end: Callable[[Row], None],
        is_dropped: Callable[[int], bool],
    ) -> None:
        """Prepare a batch.  `matchers`: place of a row -> its matcher; `n_tokens`: how many tokens have a text."""
        import torch

        self._rows, self._matchers = rows, matchers
        self._stop_tokens, self._pad_token, self._n_tokens = frozenset(stop_tokens), pad_token, n_tokens
        self._on_end, self._is_dropped = on_end, is_dropped
        self._mask = grammars.mask(len(rows)) if matchers else None
        self._random = {
            place: torch.Generator().manual_seed(row.prompt.request.seed)
            for place, row in enumerate(rows)
            if row.prompt.request.temperature > 0
        }
        self._started = time.perf_counter()

    def choose(self, _: Tensor, scores: Tensor) -> Tensor:
        """Leave one token in every row.  scores: (rows, vocabulary).  Returns the same shape."""
        import torch

        self._forbid(scores)
        tokens = scores.argmax(-1).tolist()
        for place, random in self._random.items():
            if not self._rows[place].finish:
                shares = (scores[place].float() / self._rows[place].prompt.request.temperature).softmax(-1).cpu()
                tokens[place] = int(torch.multinomial(shares, 1, generator=random))
        for place, row in enumerate(self._rows):
            if row.finish:
                tokens[place] = self._pad_token
            else:
                self._take(place, row, tokens[place])
        forced = torch.full_like(scores, -torch.inf)
        forced[torch.arange(len(tokens)), torch.tensor(tokens)] = 0
        return forced

    def ended(self, tokens: Tensor, _: Tensor, **__: Any) -> Tensor:
        """Return for every row whether it is finished.  Returns (rows,)."""
        import torch

        return torch.tensor([bool(row.finish) for row in self._rows], device=tokens.device)

    def _forbid(self, scores: Tensor) -> None:
        scores[:, self._n_tokens :] = -float("inf")  # columns without a token
        if self._mask is None:
            return
        import xgrammar

        constrained = [place for place in self._matchers if not self._rows[place].finish]
        for place in constrained:
            self._matchers[place].fill_next_token_bitmask(self._mask, place)
        if constrained:
            xgrammar.apply_token_bitmask_inplace(scores, self._mask.to(scores.device), indices=constrained)

    def _take(self, place: int, row: Row, token: int) -> None:
        seconds = time.perf_counter() - self._started
        if row.first_token_seconds is None:
            row.first_token_seconds = seconds
        if place in self._matchers:
            self._matchers[place].accept_token(token)
        if token in self._stop_tokens:
            row.finish = "stop"
        else:
            row.tokens.append(token)
            if len(row.tokens) >= row.prompt.request.max_tokens:
                row.finish = "length"
        if not row.finish and self._is_dropped(row.serial):
            row.finish = "dropped"
        if row.finish:
            row.seconds = seconds
            self._on_end(row)
