"""How many image tokens a mention costs: one question for a sentence beside one for each mention, by counting.

The sentences are WikiDiverse's (train and val of the shared data), which come without pictures; each gets one of the
pictures that are at hand.  The tokens are those of LLaVA-1.6's own processor, whose geometry the tiny model keeps."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.run import ROOT, Figure
from localmel.benchmarks.json_lines import read_split
from localmel.engines.prompts import Prompt, Prompter
from localmel.engines.protocol import Message, Request
from localmel.generate.question import asked_of, questions_of
from localmel.records import Mention
from localmel.settings import GenerateSettings
from localmel.weights.model_folder import model_folder

SPLITS = ("wikidiverse-train.jsonl", "wikidiverse-val.jsonl")
MODEL = "tiny-llava-mistral"
SETTINGS = GenerateSettings(backend="vlm")
LONGEST_SIDE, CONTEXT = 1008, 32768
"As in the profile `paper`; the context is the model's own."


def measure(shared: Path) -> list[Figure]:
    """Every request both ways, and the tokens of every picture in it."""
    pictures = sorted(
        path
        for folder in (ROOT / "examples", shared / "data" / "images")
        for path in folder.rglob("*")
        if path.suffix in (".jpg", ".jpeg", ".png")
    )
    splits = [read_split(shared / "data" / "mel" / name) for name in SPLITS]
    mentions = [
        replace(mention, image=pictures[zlib.crc32(mention.context.encode()) % len(pictures)])
        for split in splits
        for mention in split.mentions
    ]
    with TemporaryDirectory() as folder:
        script = ROOT / "scripts" / "make_tiny_models.py"
        subprocess.run([sys.executable, script, folder, "--only", MODEL], check=True, capture_output=True)
        count = Counter(Prompter(model_folder(Path(folder) / MODEL), longest_side=LONGEST_SIDE, context=CONTEXT))
        together = list(requests_about([mentions]))
        apart = list(requests_about([mention] for mention in mentions))
        n_together, n_apart = count.image_tokens(together), count.image_tokens(apart)
    n = len(mentions)
    ratio = n_apart / n_together
    return [
        Figure(section="generation", name="mentions per sentence, WikiDiverse", value=f"{n / len(together):.3f}"),
        Figure(section="generation", name="image tokens a mention, a question each", value=f"{n_apart / n:,.0f}"),
        Figure(section="generation", name="image tokens a mention, by the sentence", value=f"{n_together / n:,.0f}"),
        Figure(
            section="generation", name="times fewer image tokens", value=f"{ratio:.3f}", asked="at least 1.9",
            reached=ratio >= 1.9,
        ),
    ]  # fmt: skip


def requests_about(groups: Iterable[list[Mention]]) -> Iterable[Request]:
    """The requests that are sent where the mentions of a group are asked about together."""
    for group in groups:
        for asked in asked_of(group):
            for question in questions_of(asked, SETTINGS):
                yield question.request("q", SETTINGS)


class Counter:
    """Image tokens of requests; each picture is opened and counted once."""

    def __init__(self, prompter: Prompter) -> None:
        self._prompter = prompter
        self._known: dict[Path, int] = {}

    def image_tokens(self, requests: Iterable[Request]) -> int:
        """Over all pictures of all requests."""
        return sum(
            self._of(part)
            for request in requests
            for message in request.messages
            for part in message.parts
            if isinstance(part, Path)
        )

    def _of(self, picture: Path) -> int:
        if picture not in self._known:
            prompt = self._prompter.prompt(Request(id="q", messages=(Message(role="user", parts=(picture, "x")),)))
            assert isinstance(prompt, Prompt), prompt
            self._known[picture] = prompt.n_image_tokens
        return self._known[picture]
