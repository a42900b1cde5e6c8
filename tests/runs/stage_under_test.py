"""A process that runs the generate stage over made-up sentences, and notes what it sends.

    python stage_under_test.py RUN LOG           a scripted engine
    python stage_under_test.py RUN LOG FOLDER    the model in this folder, through transformers

In the log is one line for each request that the engine was sent: the key under which the journal keeps its answer.
Some scripted answers cannot be read, some are cut off: both lead to further requests."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from localmel.engines.journaled import Keys
from localmel.engines.open import open_engine
from localmel.engines.protocol import Engine, EngineFacts, Request, Response
from localmel.engines.scripted import ScriptedEngine
from localmel.records import Mention, Span
from localmel.runs.generate import generate_stage
from localmel.settings import EngineSettings, GenerateSettings

SCRIPTED = GenerateSettings(backend="vlm", model=EngineSettings(engine="scripted"))
_AT_ONCE = 4
_SECONDS = 0.004


def mentions(n_sentences: int) -> list[Mention]:
    found = []
    for number in range(n_sentences):
        names = [f"Name{number}{letter}" for letter in "abc"[: 1 + number % 3]]
        sentence = " met ".join(names)
        for name in names:
            span = Span(start=sentence.index(name), end=sentence.index(name) + len(name))
            found.append(Mention(id=name, surface=name, context=sentence, span=span))
    return found


def answer(request: Request) -> Response | None:
    """None: a valid answer is drawn."""
    first = str(request.messages[-1].parts[-1]).partition("Name")[2]
    number = int(first.partition("a")[0])
    if (number % 11 == 0 and request.seed == 0) or number == 33:
        return Response(request_id=request.id, text="I cannot say.", finish="stop", output_tokens=4)
    if number % 13 == 0 and request.schema and len(request.schema["properties"]) > 1:
        return Response(request_id=request.id, text="{", finish="length", output_tokens=1024)
    return None


class Batched(ScriptedEngine):
    """Takes some requests at a time, and is done with them in another order."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        remaining = iter(requests)
        while batch := list(islice(remaining, _AT_ONCE)):
            for response in reversed(list(super().generate(batch))):
                time.sleep(_SECONDS)
                yield response


class Noting(AbstractContextManager["Noting"]):
    """Any engine, with a note of what it is sent."""

    def __init__(self, engine: Engine, settings: EngineSettings, log: Path) -> None:
        self._engine, self._settings, self._log = engine, settings, log

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        key_of = Keys(self.facts(), self._settings)

        def noted() -> Iterator[Request]:
            with self._log.open("a", encoding="ascii") as log:
                for request in requests:
                    log.write(key_of(request) + "\n")
                    log.flush()
                    yield request

        return self._engine.generate(noted())

    def facts(self) -> EngineFacts:
        return self._engine.facts()

    def close(self) -> None:
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def model_engine(folder: Path) -> tuple[Engine, GenerateSettings]:
    """One request at a time: a batch of another shape may round another way."""
    model = EngineSettings(
        engine="transformers", weights=str(folder), device="cpu", dtype="float32", at_once=1, timeout=300
    )
    settings = replace(SCRIPTED, model=model, max_tokens=256, most_triples=2, retries=1)
    return open_engine(model, folder), settings


def main() -> None:
    run, log, *folder = map(Path, sys.argv[1:])
    engine, settings = model_engine(folder[0]) if folder else (Batched(SCRIPTED.model, answer), SCRIPTED)
    with Noting(engine, settings.model, log) as noting:
        stage = generate_stage(mentions(6 if folder else 120), settings, noting, run)
    sys.stdout.write(json.dumps(dict(stage.manifest["figures"])) + "\n")


if __name__ == "__main__":
    main()
