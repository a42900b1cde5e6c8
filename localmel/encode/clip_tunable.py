"""A CLIP model with gradients: open_clip's text tower and, where pictures are used, its image tower.

In: tokens of texts, prepared pictures.  Out: unit vectors, words and patches as `clip.py` computes them; and a folder
in open_clip's layout.  What does not take part is not trained: the scale of the model's own loss, and the image tower
where there are no pictures."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from localmel.encode.clip_folder import read_clip_folder
from localmel.encode.clip_model import bounded, load_clip
from localmel.encode.space import MOST_WORDS, Space
from localmel.encode.tunable import TunableEncoder, padded_ids, tokens_there
from localmel.engines.pictures import Picture
from localmel.errors import LocalmelError
from localmel.store.artifacts import MANIFEST, replace_folder, sha256_of, temporary_folder
from localmel.weights.manifest import holds_record, read_record
from localmel.weights.tuned import CARD, CLIP, TunedCard, write_tuned_card

_WEIGHTS = "open_clip_model.safetensors"
_COPIED = (".json", ".txt", ".model")
"Suffixes of configuration and tokenizer files."
_LEGAL = ("licen", "notice", "copy", "readme")
"Beginnings of the names of files about the model's licence."


class TunableClip(TunableEncoder):
    """CLIP with gradients.  It reads texts, and pictures where `sees` is set."""

    tokens_at_once: ClassVar[Mapping[str, int]] = {"cpu": 2048, "cuda": 65_536}
    pictures_at_once: ClassVar[Mapping[str, int]] = {"cpu": 16, "cuda": 256}

    def __init__(self, folder: Path, origin: Space, *, sees: bool, recompute: bool = False) -> None:
        """Raises BadInput for a model that gives no words, or no patches where pictures are used."""
        super().__init__(origin, sees=sees)
        self._folder = folder
        facts = read_clip_folder(folder)
        self._size = facts.preparation.size
        self._model = load_clip(facts, device="cpu", precision="float32")
        self.network = self._model.network
        self._model.check_words()
        if sees:
            self._model.check_patches()
        for name, weight in self.network.named_parameters():
            is_trained = name not in ("logit_scale", "logit_bias") and (sees or not name.startswith("visual."))
            weight.requires_grad_(is_trained)
        if recompute:
            self.network.set_grad_checkpointing(True)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without the padding that open_clip adds."""
        if not texts:
            return []
        tokens = self._model.tokenize([text.encode("utf-8", "replace").decode() for text in texts])
        ends = (self._model.ends(tokens) + 1).tolist()
        return [own[:end] for own, end in zip(tokens.tolist(), ends, strict=True)]

    def texts(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the projected state of the last token, the states of the words, and which words exist."""
        ids, lengths = padded_ids(tokens, self.device)
        states = self._model.text_states(ids)
        whole = self._model.projected(states[torch.arange(len(ids), device=self.device), lengths - 1])
        n_words = (lengths - 2).clamp(max=MOST_WORDS)
        is_word = tokens_there(max(1, int(n_words.max())), n_words)
        words = states[:, 1 : 1 + is_word.shape[1]].float()
        return F.normalize(whole.float(), dim=1), words * is_word[..., None], is_word

    def prepared(self, picture: Picture) -> Tensor:
        """Return the picture, prepared as the folder's configuration says."""
        return self._model.prepare(bounded(picture.image))

    def blank(self) -> Tensor:
        """Return zeros of the size that the folder's configuration names."""
        return torch.zeros(3, *self._size)

    def pictures(self, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """Return unit vectors and patches, both from one pass."""
        whole, patches = self._model.whole_and_patches(prepared.to(self.device))
        return F.normalize(whole.float(), dim=1), patches.float()

    def save(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write the tuned weights in float32, with copies of configuration, tokenizer and licence."""
        from safetensors.torch import save

        weights = {name: value.detach().cpu().contiguous() for name, value in self.network.state_dict().items()}
        with temporary_folder(folder) as temporary:
            for path in sorted(self._folder.iterdir()):
                kept = path.suffix in _COPIED or path.name.lower().startswith(_LEGAL)
                if path.is_file() and kept and path.name not in (MANIFEST, CARD):
                    shutil.copyfile(path, temporary / path.name)
            (temporary / _WEIGHTS).write_bytes(save(weights))
            card = TunedCard(
                model=CLIP,
                sha256=read_clip_folder(temporary).sha256,
                tuned_from={
                    "name": self.origin.name,
                    "weights_sha256": self.origin.weights_sha256,
                    "licence": _licence(self._folder),
                },
                facts=facts,
                files={
                    path.name: sha256_of(path)
                    for path in sorted(temporary.iterdir())
                    if path.suffix in _COPIED and not path.name.lower().startswith(_LEGAL)
                },
            )
            write_tuned_card(temporary, card)
            replace_folder(temporary, folder)


def _licence(folder: Path) -> str:
    """Return the licence recorded when the model was installed; empty where none was recorded."""
    try:
        return read_record(folder).licence if holds_record(folder) else ""
    except LocalmelError:
        return ""
