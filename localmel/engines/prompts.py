"""Put requests into the form that one model reads: its chat template, its tokens, its pictures.

In: a request and a model's folder.  Out: the text and tokens of the prompt, and how many of them are pictures.
The template is the model's own.  Where it takes no system message, that goes before the first turn of the user; where
the model can reason aloud, it is asked not to.  A request is only text: markers of turns or pictures inside it are
broken up.  Loads the tokenizer and the processor of the folder, no weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from localmel.engines.answers import too_long
from localmel.engines.choices import ChoiceTokens, choice_tokens
from localmel.engines.pictures import Picture, open_picture
from localmel.engines.protocol import Message, Request, Response
from localmel.errors import BadInput, MissingWeights
from localmel.weights.model_folder import ModelFolder

Content = list[dict[str, str]]
_TEMPLATE_OPTIONS = {"enable_thinking": False, "thinking": False, "date_string": "26 Jul 2024"}
"Variables that templates read: whether the model may reason aloud, and the date, which must not change every day."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prompt:
    """One request as the model reads it."""

    request: Request
    text: str
    token_ids: tuple[int, ...]
    "Each picture is one placeholder token."
    pictures: tuple[Picture, ...]
    n_tokens: int
    "With each picture as the tokens it expands to."
    n_image_tokens: int
    choices: ChoiceTokens | None

    @property
    def n_answer_tokens(self) -> int:
        """The most tokens that the answer may take."""
        return self.choices.longest if self.choices else self.request.max_tokens


class Prompter:
    """The tokenizer of one folder and, for models that see, its processor."""

    def __init__(self, folder: ModelFolder, *, longest_side: int, context: int) -> None:
        """Load both.  `context` limits prompt and answer together; 0 means no limit."""
        from transformers import AutoProcessor, AutoTokenizer

        loader = AutoProcessor if folder.takes_pictures else AutoTokenizer
        self._folder, self._longest_side, self._context = folder, longest_side, context
        self.processor = loader.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
        self.tokenizer = getattr(self.processor, "tokenizer", self.processor)
        self.tokenizer.padding_side = "left"
        self._template = getattr(self.processor, "chat_template", None) or self.tokenizer.chat_template
        if not self._template:
            raise MissingWeights(f"cannot write prompts for {folder.path}: it has no chat template")

    def prompt(self, request: Request) -> Prompt | Response:
        """Return the prompt, or a failed response where it does not fit.  Raises BadInput, including BadPicture."""
        paths = [part for message in request.messages for part in message.parts if isinstance(part, Path)]
        if paths and not self._folder.takes_pictures:
            raise BadInput(f"{self._folder.path.name} reads text only; the request has {len(paths)} picture(s)")
        pictures = tuple(open_picture(path, longest_side=self._longest_side) for path in paths)
        text = self._rendered(request.messages)
        tokens = self._tokens(text)
        per_picture = self._image_tokens(pictures)
        prompt = Prompt(
            request=request,
            text=text,
            token_ids=tuple(tokens),
            pictures=pictures,
            n_tokens=len(tokens) - len(pictures) + sum(per_picture),
            n_image_tokens=sum(per_picture),
            choices=self._choices(request),
        )
        if 0 < self._context < prompt.n_tokens + prompt.n_answer_tokens:
            return too_long(request, prompt.n_tokens, self._context, prompt.n_answer_tokens, prompt.n_image_tokens)
        return prompt

    @cached_property
    def stop_tokens(self) -> tuple[int, ...]:
        """All tokens that end an answer; the tokenizer's own first."""
        found = [self.tokenizer.eos_token_id]
        for name in ("generation_config.json", "config.json"):
            path = self._folder.path / name
            values = json.loads(path.read_text(encoding="utf-8-sig")) if path.is_file() else {}
            for table in (values, values.get("text_config") or {}):
                ids = table.get("eos_token_id")
                found += ids if isinstance(ids, list) else [ids]
        return tuple(dict.fromkeys(token for token in found if isinstance(token, int)))

    @property
    def pad_token(self) -> int:
        """The token that pads rows; it is never read."""
        token = self.tokenizer.pad_token_id
        return int(token if token is not None else self.stop_tokens[0])

    def decoded(self, tokens: Sequence[int]) -> str:
        """Return the text of an answer, without markers."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def begins(self, text: str) -> bool:
        """Say whether a rendered prompt already has the token that begins a text, so that none must be added."""
        return bool(self.tokenizer.bos_token) and text.startswith(self.tokenizer.bos_token)

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=not self.begins(text))["input_ids"])

    def _choices(self, request: Request) -> ChoiceTokens | None:
        if not request.choices:
            return None

        def encode(text: str) -> list[int]:
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

        return choice_tokens(request.choices, encode, self.stop_tokens[0])

    def _image_tokens(self, pictures: Sequence[Picture]) -> list[int]:
        if not pictures:
            return []
        sizes = [(picture.image.height, picture.image.width) for picture in pictures]
        try:
            return list(self.processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"])
        except ValueError as error:  # a picture too long and narrow for the model's grid
            raise BadInput(f"the model cannot take {pictures[0].path} ({error})") from None

    # --- the template --------------------------------------------------------------------------------------------

    def _rendered(self, messages: Sequence[Message]) -> str:
        """Return the prompt as text.  Raises BadInput where the template drops part of the request."""
        reasons = []
        for turns in (self._turns(messages), self._turns(_without_system(messages))):
            try:
                text = self._templated(turns)
            except Exception as error:  # noqa: BLE001 - a template raises whatever its author wrote
                reasons.append(str(error) or type(error).__name__)
                continue
            said = [part.get("text", "").strip() for _, content in turns for part in content]
            if all(part in text for part in said):
                return text
            reasons.append(f"it leaves out {next(part for part in said if part not in text)[:60]!r}")
        raise BadInput(
            f"the chat template of {self._folder.path.name} cannot express the request: {'; '.join(reasons)}"
        )

    def _templated(self, turns: Sequence[tuple[str, Content]]) -> str:
        if self._folder.takes_pictures:
            said: list[dict[str, Any]] = [{"role": role, "content": content} for role, content in turns]
        else:
            said = [{"role": role, "content": "".join(part["text"] for part in content)} for role, content in turns]
        options = {
            "chat_template": self._template,
            "tokenize": False,
            "add_generation_prompt": True,
            **_TEMPLATE_OPTIONS,
        }
        return str(self.tokenizer.apply_chat_template(said, **options))

    def _turns(self, messages: Sequence[Message]) -> list[tuple[str, Content]]:
        """Return roles with contents, adjacent texts joined: some templates read only the first text of a turn."""
        turns: list[tuple[str, Content]] = []
        for message in messages:
            content: Content = []
            for part in message.parts:
                if isinstance(part, Path):
                    content.append({"type": "image"})
                elif content and content[-1]["type"] == "text":
                    content[-1]["text"] += self._plain(part)
                else:
                    content.append({"type": "text", "text": self._plain(part)})
            turns.append((message.role, content))
        return turns

    def _plain(self, text: str) -> str:
        """Break up every marker in a text, so that it cannot end its turn or announce a picture."""
        for marker in self._markers:
            if marker in text:
                text = text.replace(marker, f"{marker[0]} {marker[1:]}")
        return text

    @cached_property
    def _markers(self) -> list[str]:
        added = self.tokenizer.get_added_vocab()
        special = set(self.tokenizer.all_special_tokens) | {marker for marker in added if marker.startswith("<")}
        return sorted((marker for marker in special if len(marker.strip()) > 1), key=len, reverse=True)


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """Move the system's words to the beginning of the user's first turn."""
    system = [part for message in messages if message.role == "system" for part in message.parts]
    others = [message for message in messages if message.role != "system"]
    if not system or not others or others[0].role != "user":
        return list(others or messages)
    texts = [f"{part}\n\n" if isinstance(part, str) else part for part in system]
    return [Message(role="user", parts=(*texts, *others[0].parts)), *others[1:]]
