"""An OpenAI-compatible server on this machine as an engine: vllm serve, llama.cpp, ollama.

In: requests.  Out: responses as they finish, several under way at a time.  A server that is busy or fails for a moment
is asked again until `timeout`; a request that it refuses fails alone; where it is gone, everything stops.  Nothing
leaves this machine unless permitted: no proxy is used, no redirection followed, and the address is checked first."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import httpx2

from localmel.engines.answers import choice_response, failed, failure, kept, refused
from localmel.engines.choices import ChoiceTokens, NextLogprobs, Tokens, choice_tokens
from localmel.engines.loopback import checked_place
from localmel.engines.openai_protocol import (
    Json,
    Server,
    Stream,
    body_of,
    count_of,
    event_of,
    message_of,
    parsed,
    read_logprobs,
    reading_body,
    refusal,
    response_of,
)
from localmel.engines.protocol import EngineFacts, Request, Response
from localmel.errors import BadInput, EngineStopped, MissingWeights
from localmel.settings import EngineSettings

_ATTEMPTS = 5
"Times that one request is sent before it counts as failed."
_PAUSE = 0.5
"Seconds before the second attempt; doubled for each further one."
_BUSY = (408, 409, 425, 429, 500, 502, 503, 504)
_GONE = (401, 403, 404)
_MOST_CHARACTERS = 16_000_000
"Longest answer that is read; a server that never stops writing is cut off."
_NO_END = -1


class _Again(Exception):
    """A failure that may pass: how the attempt failed, and how long to wait."""

    def __init__(self, problem: str, seconds: float = 0.0) -> None:
        super().__init__(problem)
        self.seconds = seconds


class ServerEngine:
    """One server, asked over `at_once` connections."""

    def __init__(self, settings: EngineSettings) -> None:
        """Check the address; nothing is sent before the first request.  Raises UsageError."""
        self._settings = settings
        self._place = checked_place(settings.url, allow_remote=settings.allow_remote)
        self._client = httpx2.Client(
            headers={"Host": self._place.host},
            trust_env=False,
            follow_redirects=False,
            timeout=httpx2.Timeout(settings.timeout, connect=min(10.0, settings.timeout)),
            limits=httpx2.Limits(max_connections=settings.at_once + 1),
        )
        self._met: Server | None = None
        self._version = ""
        self._choice_tokens: dict[tuple[str, ...], ChoiceTokens | None] = {}

    # --- requests ----------------------------------------------------------------------------------------------

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        """Yield one response per request as they finish.  Raises EngineStopped where the server is gone."""
        tasks: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        done: queue.SimpleQueue[Response | BaseException] = queue.SimpleQueue()
        n_asked, source = 0, iter(requests)
        threads: list[threading.Thread] = []
        try:
            while True:
                while n_asked < 2 * self._settings.at_once and (request := next(source, None)) is not None:
                    if (refused_response := refused(request)) is not None:
                        yield refused_response
                        continue
                    self._server()
                    if len(threads) < self._settings.at_once:
                        threads.append(threading.Thread(target=self._work, args=(tasks, done), daemon=True))
                        threads[-1].start()
                    tasks.put(request)
                    n_asked += 1
                if not n_asked:
                    return
                response = done.get()
                if isinstance(response, BaseException):
                    raise response
                n_asked -= 1
                yield response
        finally:
            with suppress(queue.Empty):
                while True:  # requests that no thread has begun are dropped
                    tasks.get_nowait()
            for _ in threads:
                tasks.put(None)

    def _work(
        self, tasks: queue.SimpleQueue[Request | None], done: queue.SimpleQueue[Response | BaseException]
    ) -> None:
        while (request := tasks.get()) is not None:
            try:
                started = time.perf_counter()
                response = kept(request, self._answered(request))
                done.put(replace(response, seconds=time.perf_counter() - started))
            except BadInput as error:
                done.put(failure(request, error))
            except BaseException as error:  # noqa: BLE001 - raised again where the answers are waited for
                done.put(error)

    def _answered(self, request: Request) -> Response:
        body = body_of(request, self._server(), longest_side=self._settings.longest_side)
        deadline = time.monotonic() + self._settings.timeout
        if request.choices and (tokens := self._tokens_of(request)) is not None:
            return self._read(request, body, tokens, deadline)
        problem = ""
        for attempt in range(_ATTEMPTS):
            try:
                return self._streamed(request, body, deadline)
            except _Again as again:
                problem = str(again)
                if not self._paused(attempt, again.seconds, deadline):
                    break
        return failed(request, f"{problem} (asked {attempt + 1} times)")

    def _paused(self, attempt: int, seconds: float, deadline: float) -> bool:
        """Wait before the next attempt; return False where there is no time for one."""
        pause = max(seconds, _PAUSE * 2**attempt)
        if attempt + 1 == _ATTEMPTS or time.monotonic() + pause >= deadline:
            return False
        time.sleep(pause)
        return True

    def _streamed(self, request: Request, body: Json, deadline: float) -> Response:
        """Make one attempt.  Raises _Again for a failure that may pass, EngineStopped for one that will not."""
        started = time.perf_counter()
        stream, first = Stream(), None
        try:
            with self._client.stream("POST", f"{self._place.url}/chat/completions", json=body) as answer:
                if answer.status_code != 200:
                    return self._not_answered(request, answer)
                if "json" in (kind := answer.headers.get("content-type", "")):
                    stream.take(parsed(answer.read().decode("utf-8", "replace")))
                elif not kind.startswith("text/event-stream"):
                    begins = answer.read()[:120].decode("utf-8", "replace")
                    raise BadInput(f"the server answered with {kind or 'no content type'}: {begins!r}")
                for line in answer.iter_lines() if not answer.is_closed else ():
                    if event := event_of(line):
                        stream.take(event)
                        first = first or (time.perf_counter() - started if stream.text else None)
                    if time.monotonic() > deadline or len(stream.text) > _MOST_CHARACTERS:
                        raise httpx2.ReadTimeout("it does not stop writing")
        except httpx2.TimeoutException:
            return failed(request, f"no complete answer within {self._settings.timeout:g} s")
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise self._unreachable(error) from None
        except httpx2.TransportError as error:
            raise _Again(f"the connection broke off after {len(stream.text)} characters ({error})") from None
        if not stream.finish and not stream.problem:
            raise _Again(f"the answer broke off after {len(stream.text)} characters")
        return response_of(request, stream, self._server(), first_token_seconds=first)

    def _not_answered(self, request: Request, answer: httpx2.Response) -> Response:
        """Return the response for a status other than 200.  Raises _Again or EngineStopped."""
        status, said = answer.status_code, _said(answer)
        if status in _BUSY:
            raise _Again(f"the server answers with status {status}: {said}", _retry_after(answer))
        if status in _GONE or answer.is_redirect:
            raise EngineStopped(f"the server at {self._settings.url} answers with status {status}: {said}")
        response = refusal(request, status, said)
        if response.too_long_by and self._server().is_vllm:
            return self._counted(request, response)
        return response

    def _counted(self, request: Request, response: Response) -> Response:
        """Count a prompt that is too long with vLLM's tokenizer: vLLM itself stops counting at the limit."""
        body = body_of(request, self._server(), longest_side=self._settings.longest_side)
        asked = {key: body[key] for key in ("model", "messages", "chat_template_kwargs")}
        try:
            answer = self._posted("/tokenize", asked, root=True)
            n_prompt, limit = int(answer["count"]), int(answer["max_model_len"])
        except (BadInput, KeyError, TypeError, ValueError, _Again):
            return response
        by = max(n_prompt + request.max_tokens - limit, response.too_long_by)
        return replace(response, too_long_by=by, prompt_tokens=max(n_prompt, response.prompt_tokens))

    # --- closed choices --------------------------------------------------------------------------------------------

    def _tokens_of(self, request: Request) -> ChoiceTokens | None:
        """Return the choices in the server's tokens; None without vLLM, or where the end of an answer would count."""
        if not self._server().is_vllm:
            return None
        if request.choices not in self._choice_tokens:
            try:
                found = choice_tokens(request.choices, self._tokenized, _NO_END)
            except (BadInput, _Again):
                found = None
            if found and any(_NO_END in tokens for tokens in found.tokens.values()):
                found = None
            self._choice_tokens[request.choices] = found
        return self._choice_tokens[request.choices]

    def _tokenized(self, text: str) -> list[int]:
        asked = {"model": self._server().model, "prompt": text, "add_special_tokens": False}
        tokens = self._posted("/tokenize", asked, root=True).get("tokens")
        if not isinstance(tokens, list):
            raise BadInput("the server does not report its tokens")
        return [int(token) for token in tokens]

    def _read(self, request: Request, body: Json, tokens: ChoiceTokens, deadline: float) -> Response:
        """Ask for the probability of each choice, token by token; the prefix cache makes all but the first cheap."""
        found: NextLogprobs = {}
        n_prompt = 0
        for beginning, wanted in tokens.asked_after().items():
            answer = self._patiently(reading_body(body, self._text(beginning), wanted), deadline)
            if isinstance(answer, str):
                return failed(request, answer)
            if isinstance(answer, httpx2.Response):
                return self._not_answered(request, answer)
            n_prompt = n_prompt or count_of(answer.get("usage"), "prompt_tokens")
            known = read_logprobs(answer)
            if missing := [token for token in wanted if token not in known]:
                return failed(request, f"the server did not report the probability of token {missing[0]}")
            found[beginning] = {token: known[token] for token in wanted}
        return choice_response(request, tokens.logprobs(found), n_tokens=tokens.lengths, prompt_tokens=n_prompt)

    def _text(self, tokens: Tokens) -> str:
        if not tokens:
            return ""
        asked = {"model": self._server().model, "tokens": list(tokens)}
        return str(self._posted("/detokenize", asked, root=True).get("prompt", ""))

    def _patiently(self, body: Json, deadline: float) -> Json | httpx2.Response | str:
        """Return an answer, a refusal or, after all attempts, the problem."""
        problem = ""
        for attempt in range(_ATTEMPTS):
            try:
                return self._posted("/chat/completions", body)
            except httpx2.HTTPStatusError as error:
                if error.response.status_code not in _BUSY:
                    return error.response
                problem = f"the server answers with status {error.response.status_code}: {_said(error.response)}"
                seconds = _retry_after(error.response)
            except _Again as again:
                problem, seconds = str(again), 0.0
            if not self._paused(attempt, seconds, deadline):
                break
        return f"{problem} (asked {attempt + 1} times)"

    # --- the server itself ---------------------------------------------------------------------------------------

    def _posted(self, path: str, body: Json, *, root: bool = False) -> Json:
        """Return one plain answer.  Raises HTTPStatusError, _Again, BadInput, EngineStopped."""
        base = self._place.url.removesuffix("/v1") if root else self._place.url
        try:
            answer = self._client.post(f"{base}{path}", json=body)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise self._unreachable(error) from None
        except httpx2.TransportError as error:
            raise _Again(f"no answer ({type(error).__name__}: {error})") from None
        if root and answer.status_code != 200:
            raise BadInput(f"the server has no {path} (status {answer.status_code})")
        if answer.status_code != 200:
            raise httpx2.HTTPStatusError(_said(answer), request=answer.request, response=answer)
        return parsed(answer.text)

    def _server(self) -> Server:
        """Ask once which server answers.  Raises EngineStopped where none does, MissingWeights for another model."""
        if self._met is None:
            try:
                answer = self._client.get(f"{self._place.url}/models")
            except httpx2.TransportError as error:
                raise self._unreachable(error) from None
            self._met = self._found(answer)
            with suppress(httpx2.TransportError, BadInput, ValueError):
                reply = self._client.get(f"{self._place.url.removesuffix('/v1')}/version")
                self._version = str(parsed(reply.text).get("version", "")) if reply.status_code == 200 else ""
        return self._met

    def _found(self, answer: httpx2.Response) -> Server:
        url, wanted = self._settings.url, self._settings.weights
        try:
            if answer.status_code != 200:
                raise BadInput(f"status {answer.status_code}: {_said(answer)}")
            models: list[Any] = parsed(answer.text)["data"]
            by_name = {str(model["id"]): model for model in models}
        except (BadInput, KeyError, TypeError) as error:
            raise EngineStopped(f"{url} is not an OpenAI-compatible server ({error})") from None
        found = by_name.get(wanted) or by_name.get(f"{wanted}:latest")
        if found is None:
            names = ", ".join(sorted(by_name)) or "none"
            raise MissingWeights(f"the server at {url} has no model {wanted!r}; it has {names}")
        parts = [found.get(key) for key in ("id", "root", "created" if found.get("owned_by") == "library" else "")]
        name = " ".join(dict.fromkeys(str(part) for part in parts if part))
        return Server(model=str(found["id"]), kind=str(found.get("owned_by") or ""), name=name)

    def _unreachable(self, error: Exception) -> EngineStopped:
        return EngineStopped(
            f"no server answers at {self._settings.url} ({error})",
            hint=f"curl {self._settings.url}/models   # once the server is started",
        )

    def facts(self) -> EngineFacts:
        """Return the facts that the server reports; its hardware is not among them."""
        server = self._server()
        versions = {server.kind or "server": self._version or "unknown"}
        return EngineFacts(engine="server", model=server.model, revision=server.name, versions=versions)

    def close(self) -> None:
        """Close the connections; the server keeps running."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _said(answer: httpx2.Response) -> str:
    """Return the message of an error answer."""
    try:
        text = answer.read()[:4000].decode("utf-8", "replace")
    except httpx2.HTTPError:
        return "nothing"
    try:
        table = parsed(text)
        return message_of(table.get("error") or table)
    except BadInput:
        return repr(text[:120])


def _retry_after(answer: httpx2.Response) -> float:
    """Return the seconds that a busy server asks for; 0 where it names none, or a date."""
    try:
        return max(0.0, float(answer.headers.get("retry-after", "0")))
    except ValueError:
        return 0.0
