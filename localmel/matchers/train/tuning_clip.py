"""A CLIP model with gradients: open_clip's text tower and, where pictures are looked at, its image tower.

In: tokens of texts, prepared pictures.  Out: wholes, words and patches as `encode/clip.py` and `clip_tokens.py` take
them; and a folder as open_clip publishes it.  What is not looked at stays as it is: the scale of the model's own loss,
and the image tower where there are no pictures."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from localmel.encode.clip import bounded, ends_of, is_causal, projected, text_states
from localmel.encode.clip_folder import read_clip_folder
from localmel.encode.clip_model import load_clip
from localmel.encode.clip_tokens import ClipTokens
from localmel.encode.minilm_torch import tokens_there
from localmel.encode.minilm_words import padded_ids
from localmel.encode.token_encoders import MOST_WORDS
from localmel.engines.pictures import Picture
from localmel.errors import BadInput, LocalmelError
from localmel.matchers.train.tuning_encoder import TunableEncoder
from localmel.store.artifacts import MANIFEST, replace_folder, sha256_of, temporary_folder
from localmel.weights.manifest import holds_record, read_record
from localmel.weights.tuned import CARD, CLIP, TunedCard, write_tuned_card

_WEIGHTS = "open_clip_model.safetensors"
_BESIDE = (".json", ".txt", ".model")
_TEXTS = ("licen", "notice", "copy", "readme")
"How files begin that say whose a model is."


class TunableClip(TunableEncoder):
    """Reads texts, and pictures where it is to."""

    tokens_at_once: ClassVar[Mapping[str, int]] = {"cpu": 2048, "cuda": 65_536}
    pictures_at_once: ClassVar[Mapping[str, int]] = {"cpu": 16, "cuda": 256}

    def __init__(self, encoder: ClipTokens, *, sees: bool, recompute: bool = False) -> None:
        """Raises BadInput for a model whose words or patches cannot be looked at singly."""
        super().__init__(encoder.space, sees=sees)
        self._folder = encoder.folder
        facts = read_clip_folder(encoder.folder)
        self._size = facts.preparation.size
        model = load_clip(facts, device="cpu", precision="float32")
        self.network, self._tokenize, self._prepare = model.network, model.tokenize, model.prepare
        if not is_causal(self.network):
            raise BadInput(f"{self.origin.name} does not tell words from padding; its words cannot be looked at singly")
        if sees and getattr(self.network.visual, "transformer", None) is None:
            raise BadInput(f"the image tower of {self.origin.name} has no patches that could be looked at singly")
        for name, weight in self.network.named_parameters():
            is_trained = name not in ("logit_scale", "logit_bias") and (sees or not name.startswith("visual."))
            weight.requires_grad_(is_trained)
        if recompute:
            self.network.set_grad_checkpointing(True)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Without the padding that open_clip puts behind each text."""
        if not texts:
            return []
        tokens = self._tokenize([text.encode("utf-8", "replace").decode() for text in texts])
        ends = (ends_of(self.network, tokens) + 1).tolist()
        return [own[:end] for own, end in zip(tokens.tolist(), ends, strict=True)]

    def texts(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """The last token's state, projected, is the whole."""
        ids, lengths = padded_ids(tokens, self.device)
        states = self.network.ln_final(text_states(self.network, ids))
        whole = projected(self.network, states[torch.arange(len(ids), device=self.device), lengths - 1])
        n_words = (lengths - 2).clamp(max=MOST_WORDS)
        is_word = tokens_there(max(1, int(n_words.max())), n_words)
        words = states[:, 1 : 1 + is_word.shape[1]].float()
        return F.normalize(whole.float(), dim=1), words * is_word[..., None], is_word

    def prepared(self, picture: Picture) -> Tensor:
        """As the folder's configuration says."""
        return self._prepare(bounded(picture.image))

    def blank(self) -> Tensor:
        """Of the size that the folder names."""
        return torch.zeros(3, *self._size)

    def pictures(self, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """Both in one pass."""
        held: list[Tensor] = []
        hook = self.network.visual.transformer.register_forward_hook(lambda _, _given, states: held.append(states))
        try:
            whole = self.network.encode_image(prepared.to(self.device))
        finally:
            hook.remove()
        return F.normalize(whole.float(), dim=1), held[0][:, 1:].float()  # the first one is the whole's

    def save(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Configuration, tokenizer and licence of the one it was tuned from, and its own weights in float32."""
        from safetensors.torch import save

        weights = {name: value.detach().cpu().contiguous() for name, value in self.network.state_dict().items()}
        with temporary_folder(folder) as temporary:
            for path in sorted(self._folder.iterdir()):
                kept = path.suffix in _BESIDE or path.name.lower().startswith(_TEXTS)
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
                    if path.suffix in _BESIDE and not path.name.lower().startswith(_TEXTS)
                },
            )
            write_tuned_card(temporary, card)
            replace_folder(temporary, folder)


def _licence(folder: Path) -> str:
    """As it was recorded when the model came here; empty where nobody did."""
    try:
        return read_record(folder).licence if holds_record(folder) else ""
    except LocalmelError:
        return ""
