"""MiniLM with gradients: the six layers of `encode/minilm_torch.py` over weights that are trained.

In: tokens of texts.  Out: whole texts and their words; and a folder laid out as the published one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from localmel.encode.minilm import TOKENIZER, WEIGHTS, published_names, read_weights
from localmel.encode.minilm_torch import as_tensors, last_states, pooled, tokens_there
from localmel.encode.minilm_words import MiniLmWords, padded_ids, words_in
from localmel.engines.pictures import Picture
from localmel.errors import BadInput
from localmel.matchers.train.tuning_encoder import TunableEncoder
from localmel.store.artifacts import replace_folder, sha256_of, temporary_folder
from localmel.weights.catalog import MINILM
from localmel.weights.tuned import TunedCard, write_tuned_card

_BESIDE = ("config.json", TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_DOT = "/"
"Stands for the dot in names of weights, which torch takes for a module's."


class TunableMiniLm(TunableEncoder):
    """Reads texts only."""

    tokens_at_once: ClassVar[Mapping[str, int]] = {"cpu": 2048, "cuda": 65_536}
    pictures_at_once: ClassVar[Mapping[str, int]] = {"cpu": 1, "cuda": 1}

    def __init__(self, encoder: MiniLmWords, *, recompute: bool = False) -> None:
        super().__init__(encoder.space, sees=False)
        self._encoder, self._recompute = encoder, recompute
        copied = as_tensors(read_weights(encoder.folder / WEIGHTS), torch.device("cpu"), torch.float32)
        self.weights = nn.ParameterDict(
            {name.replace(".", _DOT): nn.Parameter(value) for name, value in copied.items()}
        )

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """See `MiniLmWords.tokens`."""
        return self._encoder.tokens(texts)

    def texts(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """The mean of all states is the whole; those of the first words are the words."""
        ids, lengths = padded_ids(tokens, self.device)
        is_token = tokens_there(ids.shape[1], lengths)
        states = last_states(self._named(), ids, is_token, recompute=self._recompute)
        n_words = torch.tensor([words_in(len(own)) for own in tokens], device=self.device)
        is_word = tokens_there(max(1, int(n_words.max())), n_words)
        words = states[:, 1 : 1 + is_word.shape[1]].float()
        return pooled(states, is_token), words * is_word[..., None], is_word

    def prepared(self, picture: Picture) -> Tensor:
        """Raises BadInput: no pictures are looked at."""
        raise self._blind()

    def blank(self) -> Tensor:
        """Raises BadInput likewise."""
        raise self._blind()

    def pictures(self, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """Raises BadInput likewise."""
        raise self._blind()

    def save(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """The files of the one it was tuned from, and its own weights under the published names."""
        from safetensors.numpy import load_file, save

        before = self._encoder.folder
        own = {name: value.detach().float().cpu().numpy() for name, value in self._named().items()}
        graph = {name: value.T if name.endswith(".weight") else value for name, value in own.items()}
        with temporary_folder(folder) as temporary:
            for name in _BESIDE:
                if (before / name).is_file():
                    shutil.copyfile(before / name, temporary / name)
            stored = published_names(graph, load_file(before / WEIGHTS))
            (temporary / WEIGHTS).write_bytes(save(stored, metadata={"format": "pt"}))
            card = TunedCard(
                model=MINILM.name,
                sha256=sha256_of(temporary / WEIGHTS),
                tuned_from={
                    "name": self.origin.name,
                    "weights_sha256": self.origin.weights_sha256,
                    "licence": MINILM.licence,
                },
                facts=facts,
                files={name: sha256_of(temporary / name) for name in _BESIDE if (temporary / name).is_file()},
            )
            write_tuned_card(temporary, card)
            replace_folder(temporary, folder)

    def _blind(self) -> BadInput:
        return BadInput(f"{self.origin.name} looks at no pictures")

    def _named(self) -> dict[str, Tensor]:
        return {name.replace(_DOT, "."): value for name, value in self.weights.items()}
