"""Run a model by Hugging Face transformers, on a CPU or on one GPU, inside a worker.

In: requests.  Out: responses, as rows of a batch end.  A batch holds requests of one kind and of similar length, padded
on the left.  Weights are safetensors of a folder; code from it is never run.  Where memory runs out, the batch size is
halved and stays so; a request that does not fit alone fails alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from localmel.engines.answers import choice_response, failed
from localmel.engines.choices import choice_logprobs
from localmel.engines.decoding import Decoding, Grammars, Row
from localmel.engines.memory import free_memory, peak_bytes
from localmel.engines.prompts import Prompter
from localmel.engines.protocol import Request, Response
from localmel.settings import EngineSettings
from localmel.weights.model_folder import ModelFolder

if TYPE_CHECKING:
    from torch import Tensor

Answer = Callable[[int, Response], None]
_LEFT_PADDED = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}
_KEPT_WHOLE = [
    rf"(.*\.)?{part}" for part in ("lm_head", "vision_tower", "visual", "vision_model", "multi_modal_projector")
]
"Parts that bitsandbytes leaves unquantised: they are small next to the language model, and precision pays there."


class TransformersModel:
    """One loaded model, and the requests that wait for it."""

    def __init__(
        self, folder: ModelFolder, settings: EngineSettings, answer: Answer, is_dropped: Callable[[int], bool]
    ) -> None:
        import torch

        transformers = _hugging_face()
        transformers.logging.disable_progress_bar()
        self._answer, self._is_dropped = answer, is_dropped
        self._at_once = settings.at_once
        self.device = settings.device if settings.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        context = settings.context or folder.context
        self._prompter = Prompter(folder, longest_side=settings.longest_side, context=context)
        kinds = transformers.AutoModelForImageTextToText if folder.takes_pictures else transformers.AutoModelForCausalLM
        self._model = kinds.from_pretrained(
            folder.path,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            device_map={"": self.device},
            dtype=_dtype(settings, self.device),
            quantization_config=_quantization(settings, self.device),
        ).eval()
        pad = self._prompter.pad_token
        self._model.generation_config = transformers.GenerationConfig(pad_token_id=pad, do_sample=False)
        n_scores = self._model.config.get_text_config().vocab_size
        self._grammars = Grammars(self._prompter.tokenizer, n_scores, self._prompter.stop_tokens)
        self._waiting: list[Row] = []

    @property
    def is_idle(self) -> bool:
        """Return whether no request is waiting."""
        return not self._waiting

    def peak_bytes(self) -> int:
        """Return the most memory the process has held on the device."""
        return peak_bytes(self.device)

    def close(self) -> None:
        """Do nothing: the end of the process frees everything."""

    def take(self, serial: int, request: Request) -> None:
        """Queue a request; one that cannot be asked is answered at once."""
        if request.schema is not None:
            self._grammars.matcher(request.schema)  # raises here, for this request alone
        prompt = self._prompter.prompt(request)
        if isinstance(prompt, Response):
            self._answer(serial, prompt)
        else:
            self._waiting.append(Row(serial=serial, prompt=prompt))

    def drop(self, serials: Collection[int]) -> None:
        """Drop requests whose answers nobody waits for."""
        self._waiting = [row for row in self._waiting if row.serial not in serials]

    def step(self) -> None:
        """Answer one batch."""
        batch = self._next_batch()
        self._waiting = [row for row in self._waiting if row not in batch]
        self._run(batch)

    def _next_batch(self) -> list[Row]:
        """Return the oldest request with those most like it: same kind, as many pictures, nearest in length."""

        def kind(row: Row) -> tuple[bool, int]:
            return row.prompt.choices is not None, len(row.prompt.pictures)

        oldest = self._waiting[0]
        alike = [row for row in self._waiting if kind(row) == kind(oldest)]
        alike.sort(key=lambda row: (abs(row.prompt.n_tokens - oldest.prompt.n_tokens), row.serial))
        return alike[: self._at_once]

    def _run(self, batch: Sequence[Row]) -> None:
        import torch

        problem, memory_ran_out = "", False
        try:
            rows, inputs = self._inputs(batch)
            if rows and rows[0].prompt.choices is not None:
                self._score(rows, inputs)
            elif rows:
                self._write(rows, inputs)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError, ValueError, IndexError) as error:
            if "cuda error" in str(error).lower():  # the card is unusable from here on
                raise
            problem, memory_ran_out = f"{type(error).__name__}: {error}", is_out_of_memory(error)
        if problem:  # outside the handler, where no error keeps the batch in memory
            self._again([row for row in batch if not row.finish], problem, memory_ran_out)

    def _again(self, batch: Sequence[Row], problem: str, memory_ran_out: bool) -> None:
        """Retry the rest of a failed batch: in halves where memory ran out, else one by one to find the culprit."""
        import torch

        if self.device == "cuda":
            torch.cuda.empty_cache()
        if len(batch) == 1:
            row = batch[0]
            if memory_ran_out:
                problem = f"memory ran out over {row.prompt.n_tokens:,} tokens ({free_memory(self.device)})"
            self._answer(row.serial, failed(row.prompt.request, f"the model failed ({problem})", **_costs(row)))
            return
        size = max(1, len(batch) // 2) if memory_ran_out else 1
        if memory_ran_out:
            self._at_once = size
        for start in range(0, len(batch), size):
            self._run(batch[start : start + size])

    def _inputs(self, batch: Iterable[Row]) -> tuple[list[Row], dict[str, Tensor]]:
        """Return rows and left-padded inputs; rows whose pictures the processor refuses are answered and left out."""
        rows, parts = [], []
        for row in batch:
            try:
                parts.append(self._processed(row))
                rows.append(row)
            except (ValueError, RuntimeError, TypeError, ZeroDivisionError) as error:
                if is_out_of_memory(error):
                    raise
                row.finish = "failed"
                problem = f"the model's processor refuses the request ({str(error) or type(error).__name__})"
                self._answer(row.serial, failed(row.prompt.request, problem, **_costs(row)))
        if not rows:
            return [], {}
        joined = collated(parts, pad_token=self._prompter.pad_token)
        dtype = self._model.dtype
        return rows, {
            name: tensor.to(self.device, dtype if tensor.is_floating_point() else None)
            for name, tensor in joined.items()
        }

    def _processed(self, row: Row) -> Mapping[str, Tensor]:
        import torch

        prompt = row.prompt
        if not prompt.pictures:
            token_ids = torch.tensor([prompt.token_ids])
            return {"input_ids": token_ids, "attention_mask": torch.ones_like(token_ids)}
        images = [picture.image for picture in prompt.pictures]
        special = not self._prompter.begins(prompt.text)
        found: Mapping[str, Tensor] = self._prompter.processor(
            text=[prompt.text], images=images, return_tensors="pt", add_special_tokens=special
        )
        return found

    def _write(self, rows: Sequence[Row], inputs: Mapping[str, Tensor]) -> None:
        import torch

        matchers = {}
        for place, row in enumerate(rows):
            row.tokens.clear()  # left by an attempt that ran out of memory
            if (schema := row.prompt.request.schema) is not None:
                matchers[place] = self._grammars.matcher(schema)
        decoding = Decoding(
            rows,
            matchers,
            self._grammars,
            stop_tokens=self._prompter.stop_tokens,
            pad_token=self._prompter.pad_token,
            n_tokens=len(self._prompter.tokenizer),
            on_end=self._hand_out,
            is_dropped=self._is_dropped,
        )
        with torch.inference_mode():
            self._model.generate(
                **inputs,
                max_new_tokens=max(row.prompt.request.max_tokens for row in rows),
                logits_processor=[decoding.choose],
                stopping_criteria=[decoding.ended],
            )

    def _hand_out(self, row: Row) -> None:
        if row.finish == "dropped":
            return
        response = Response(
            request_id=row.prompt.request.id,
            text=self._prompter.decoded(row.tokens),
            finish="stop" if row.finish == "stop" else "length",
            output_tokens=len(row.tokens) + (row.finish == "stop"),
            seconds=row.seconds,
            first_token_seconds=row.first_token_seconds,
            **_costs(row),
        )
        self._answer(row.serial, response)

    def _score(self, rows: Sequence[Row], inputs: Mapping[str, Tensor]) -> None:
        started = time.perf_counter()
        choices = [row.prompt.choices for row in rows if row.prompt.choices is not None]
        scored = choice_logprobs(self._model, inputs, choices, at_once=self._at_once)
        seconds = time.perf_counter() - started
        for row, its, logprobs in zip(rows, choices, scored, strict=True):
            row.finish = "stop"
            costs = {"seconds": seconds, **_costs(row)}
            self._answer(row.serial, choice_response(row.prompt.request, logprobs, n_tokens=its.lengths, **costs))


def collated(parts: Sequence[Mapping[str, Tensor]], *, pad_token: int) -> dict[str, Tensor]:
    """Join the inputs of single prompts into those of a batch.

    Tokens are padded on the left.  Pictures of any shape are concatenated; those cut into tiles are padded to as many
    tiles as the largest has."""
    import torch
    from torch.nn.functional import pad

    joined = {}
    longest = max(part["input_ids"].shape[1] for part in parts)
    for name in parts[0]:
        tensors = [part[name] for part in parts]
        if name in _LEFT_PADDED:
            filler = pad_token if name == "input_ids" else 0
            tensors = [pad(tensor, (longest - tensor.shape[1], 0), value=filler) for tensor in tensors]
        elif tensors[0].ndim == 5:  # (pictures, tiles, channels, height, width)
            most = max(tensor.shape[1] for tensor in tensors)
            tensors = [pad(tensor, (0,) * 6 + (0, most - tensor.shape[1])) for tensor in tensors]
        joined[name] = torch.cat(tensors)
    return joined


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error of torch or the system means that memory ran out."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(
        words in said for words in ("out of memory", "can't allocate memory", "cannot allocate memory")
    )


def _costs(row: Row) -> dict[str, Any]:
    return {"prompt_tokens": row.prompt.n_tokens, "image_tokens": row.prompt.n_image_tokens}


def _hugging_face() -> Any:
    import transformers

    return transformers


def _dtype(settings: EngineSettings, device: str) -> Any:
    """Return the dtype to load; `auto` is float32 on a CPU (exact and often fastest), else the stored one."""
    import torch

    if settings.dtype == "auto":
        return torch.float32 if device == "cpu" else "auto"
    return getattr(torch, settings.dtype)


def _quantization(settings: EngineSettings, device: str) -> Any:
    """Return the settings of bitsandbytes, or None."""
    if settings.quantization not in ("4bit", "8bit"):
        return None
    import torch

    if settings.quantization == "8bit":
        return _hugging_face().BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=_KEPT_WHOLE)
    computed_in = torch.float32 if device == "cpu" else torch.bfloat16
    return _hugging_face().BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=computed_in,
        llm_int8_skip_modules=_KEPT_WHOLE,
    )
