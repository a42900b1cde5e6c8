"""Run a model by vLLM inside a worker: requests enter its batch and leave it one by one.

In: requests.  Out: responses as they finish.  vLLM's structured outputs enforce schemas; closed choices are not written
but read: after each beginning of a choice vLLM is asked how probable the possible next tokens are, and prefix caching
makes each of these questions cost one token.  Weights are safetensors; a model's code is never run.

On a CPU vLLM runs inside this process; on GPUs it has one of its own, and pictures are prepared here while the card
works there."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from localmel.engines.answers import choice_response, failed
from localmel.engines.choices import ChoiceTokens, NextLogprobs, Tokens
from localmel.engines.memory import free_memory, peak_bytes
from localmel.engines.prompts import Prompt, Prompter
from localmel.engines.protocol import Request, Response
from localmel.errors import UsageError
from localmel.settings import EngineSettings
from localmel.weights.model_folder import ModelFolder

Answer = Callable[[int, Response], None]
MOST_PICTURES = 1
"Pictures per request: vLLM reserves memory for the most there may be."
_TOKENS_AT_ONCE = 128
"Next tokens whose probability one question to vLLM may ask for."
_CPU_CACHE = (1 << 28, 1 << 34)
"Least and most bytes of keys and values in main memory."


@dataclass(slots=True, kw_only=True, eq=False)
class _Asked:
    """One request inside vLLM; a closed question is several of its requests."""

    serial: int
    prompt: Prompt
    started: float
    open: set[str] = field(default_factory=set)
    "Ids under which vLLM works on it."
    found: NextLogprobs = field(default_factory=dict)
    n_cached: int = 0
    "Tokens of the prompt that vLLM took from its cache."


class VllmModel:
    """One loaded model, and the requests it works on."""

    def __init__(self, folder: ModelFolder, settings: EngineSettings, answer: Answer) -> None:
        self._answer = answer
        self.device = _device(settings)
        if self.device == "cpu":
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
            os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # else the first closed choice compiles for a minute
        from vllm import LLM

        context = settings.context or folder.context
        self._prompter = Prompter(folder, longest_side=settings.longest_side, context=context)
        free_before = free_memory(self.device).free
        self._llm = LLM(**_arguments(folder, settings, self.device))
        self._taken = max(0, free_before - free_memory(self.device).free)
        self._is_closing = False
        if own := multiprocessing.active_children():
            threading.Thread(target=self._watch, args=(own,), daemon=True).start()
        self._asked: dict[str, tuple[_Asked, Tokens]] = {}

    @property
    def is_idle(self) -> bool:
        """Return whether vLLM has nothing to do."""
        return not self._asked

    def peak_bytes(self) -> int:
        """Return the peak; on a GPU, the share that vLLM takes when it is loaded and keeps."""
        return self._taken if self.device == "cuda" else peak_bytes("cpu")

    def close(self) -> None:
        """Let vLLM's processes end from now on."""
        self._is_closing = True

    def _watch(self, processes: Sequence[multiprocessing.process.BaseProcess]) -> None:
        """End this process when one of vLLM's own ends: the interface used here would wait for it forever."""
        ready = multiprocessing.connection.wait([process.sentinel for process in processes])
        ended = [process for process in processes if process.sentinel in ready]
        if self._is_closing:
            return
        for process in ended:
            process.join(2)
        statuses = [process.exitcode for process in ended]
        sys.stderr.write(f"vLLM's own process ended (status {', '.join(map(str, statuses))})\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL if -signal.SIGKILL in statuses else signal.SIGABRT)

    def take(self, serial: int, request: Request) -> None:
        """Hand a request to vLLM.  Raises BadInput where it alone cannot be asked."""
        prompt = self._prompter.prompt(request)
        if isinstance(prompt, Response):
            self._answer(serial, prompt)
            return
        if len(prompt.pictures) > MOST_PICTURES:
            problem = f"the request has {len(prompt.pictures)} pictures; this engine takes {MOST_PICTURES}"
            self._answer(serial, failed(request, problem))
            return
        asked = _Asked(serial=serial, prompt=prompt, started=time.perf_counter())
        try:
            if prompt.choices is None:
                self._send(asked, (), self._sampling(request))
            else:
                self._read(asked, prompt.choices, ())
        except ValueError as error:  # how vLLM refuses a request
            self._answer(serial, failed(request, f"vLLM refuses the request ({error})"))

    def drop(self, serials: Collection[int]) -> None:
        """Drop requests whose answers nobody waits for."""
        for asked in {id(asked): asked for asked, _ in self._asked.values() if asked.serial in serials}.values():
            self._forget(asked)

    def step(self) -> None:
        """Run one step of vLLM's batch."""
        if not self._llm.llm_engine.has_unfinished_requests():
            raise RuntimeError(f"vLLM has nothing to do and has not answered {len(self._asked)} requests")
        for output in self._llm.llm_engine.step():
            if output.finished and (found := self._asked.pop(output.request_id, None)):
                asked, beginning = found
                asked.open.discard(output.request_id)
                if asked.prompt.choices is None:
                    self._answer(asked.serial, self._written(asked, output))
                else:
                    self._take_reading(asked, asked.prompt.choices, beginning, output)

    def _forget(self, asked: _Asked) -> None:
        for number in asked.open:
            self._asked.pop(number, None)
        self._llm.llm_engine.abort_request(list(asked.open))
        asked.open.clear()

    def _send(self, asked: _Asked, beginning: Tokens, sampling: Any) -> None:
        prompt: dict[str, Any] = {"prompt_token_ids": [*asked.prompt.token_ids, *beginning]}
        if asked.prompt.pictures:
            prompt["multi_modal_data"] = {"image": [picture.image for picture in asked.prompt.pictures]}
        for named in self._llm.enqueue([prompt], [sampling], use_tqdm=False):
            number = named.partition("-")[0]  # vLLM appends something random, which its outputs leave out
            asked.open.add(number)
            self._asked[number] = (asked, beginning)

    def _sampling(self, request: Request) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        schema = dict(request.schema) if request.schema is not None else None
        return SamplingParams(
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            seed=request.seed if request.temperature > 0 else None,
            stop_token_ids=list(self._prompter.stop_tokens),
            structured_outputs=StructuredOutputsParams(json=schema) if schema is not None else None,
            detokenize=False,
        )

    def _written(self, asked: _Asked, output: Any) -> Response:
        """Return the response of a request whose answer vLLM wrote."""
        request, written, prompt = asked.prompt.request, output.outputs[0], asked.prompt
        if written.finish_reason not in ("stop", "length"):
            return failed(request, f"vLLM ended the request with {written.finish_reason!r} ({written.stop_reason})")
        tokens = [token for token in written.token_ids if token not in self._prompter.stop_tokens]
        times = output.metrics
        begun = times.scheduled_ts if times else 0.0
        return Response(
            request_id=request.id,
            text=self._prompter.decoded(tokens),
            finish=written.finish_reason,
            prompt_tokens=len(output.prompt_token_ids or ()) or prompt.n_tokens,
            image_tokens=prompt.n_image_tokens,
            cached_tokens=output.num_cached_tokens or 0,
            output_tokens=len(written.token_ids),
            seconds=times.last_token_ts - begun if times else time.perf_counter() - asked.started,
            first_token_seconds=times.first_token_ts - begun if times else None,
        )

    # --- closed choices --------------------------------------------------------------------------------------------

    def _read(self, asked: _Asked, choices: ChoiceTokens, beginning: Tokens) -> None:
        """Ask for the probability of the tokens with which choices continue this beginning."""
        from vllm import SamplingParams

        wanted = choices.asked_after()[beginning]
        asked.found[beginning] = {}
        for start in range(0, len(wanted), _TOKENS_AT_ONCE):
            some = list(wanted[start : start + _TOKENS_AT_ONCE])
            sampling = SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=some, detokenize=False)
            self._send(asked, beginning, sampling)

    def _take_reading(self, asked: _Asked, choices: ChoiceTokens, beginning: Tokens, output: Any) -> None:
        request = asked.prompt.request
        logprobs, wanted = output.outputs[0].logprobs[0], choices.asked_after()
        if not beginning:
            asked.n_cached = output.num_cached_tokens or 0
        asked.found[beginning] |= {token: logprobs[token].logprob for token in wanted[beginning] if token in logprobs}
        try:
            if not beginning and not asked.open:  # the prompt is cached now: later questions cost little
                for later in wanted:
                    if later:
                        self._read(asked, choices, later)
        except ValueError as error:
            self._forget(asked)
            self._answer(asked.serial, failed(request, f"vLLM refuses the request ({error})"))
            return
        if asked.open:
            return
        costs = {
            "prompt_tokens": asked.prompt.n_tokens,
            "image_tokens": asked.prompt.n_image_tokens,
            "cached_tokens": asked.n_cached,
            "seconds": time.perf_counter() - asked.started,
        }
        response = choice_response(request, choices.logprobs(asked.found), n_tokens=choices.lengths, **costs)
        self._answer(asked.serial, response)


def _device(settings: EngineSettings) -> str:
    """Return the device this vLLM was built for.  Raises UsageError where the settings ask for another one."""
    from vllm.platforms import current_platform

    built_for = str(current_platform.device_type)
    if settings.device not in ("auto", built_for):
        raise UsageError(f"device is {settings.device!r}; this vLLM runs on {built_for!r}", hint='device = "auto"')
    return built_for


def _arguments(folder: ModelFolder, settings: EngineSettings, device: str) -> dict[str, Any]:
    """Return the arguments that vLLM is started with."""
    arguments: dict[str, Any] = {
        "model": str(folder.path),
        "load_format": "safetensors",
        "trust_remote_code": False,
        "dtype": "float32" if settings.dtype == "auto" and device == "cpu" else settings.dtype,
        "max_model_len": settings.context or None,
        "max_num_seqs": settings.at_once,
        "tensor_parallel_size": settings.tensor_parallel,
        "pipeline_parallel_size": settings.pipeline_parallel,
        "gpu_memory_utilization": settings.memory_share,
        "enable_prefix_caching": True,
        "generation_config": "vllm",  # sampling never follows a file in the model's folder
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        "disable_log_stats": False,  # the stats carry the time of the first token
        "seed": 0,
    }
    if settings.quantization in ("4bit", "8bit"):
        arguments["quantization"] = "bitsandbytes"
    elif settings.quantization == "fp8" and not folder.quantized_as:
        arguments["quantization"] = "fp8"
    if folder.takes_pictures:
        arguments["limit_mm_per_prompt"] = {"image": MOST_PICTURES, "video": 0}
        arguments["mm_processor_cache_gb"] = 1
    if device == "cpu":
        wanted = settings.at_once * (settings.context or folder.context or 4096) * folder.cache_bytes_per_token * 2
        free = int(free_memory("cpu").free * settings.memory_share) - 2 * folder.weight_bytes
        least, most = _CPU_CACHE
        arguments["kv_cache_memory_bytes"] = max(least, min(wanted, free, most))
        arguments["enforce_eager"] = True
    return arguments
