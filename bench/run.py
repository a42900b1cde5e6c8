"""`just bench`: every number that is asked of the embedded profile, measured now, with what was asked beside it.

    python -m bench.run [SECTION ...] [--json FILE]      # sections: --help

Needs the shared data (LOCALMEL_SHARED, else ../shared beside the checkout).  The KB of the benchmark is built and
indexed once under LOCALMEL_HOME and used again.  Times on a shared machine are noisy: ratios are taken from runs that
alternate, absolute times are the best of several."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
ONLY_WHEN_NAMED = ("index", "ablations", "clip", "filtering", "matchers")
"A million vectors take a quarter of an hour, ablations their own trained networks."


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number, printed with what was asked."""

    section: str
    name: str
    value: str
    asked: str = ""
    reached: bool | None = None

    def line(self) -> str:
        """As a row of a Markdown table."""
        mark = {True: "yes", False: "**no**", None: ""}[self.reached]
        return f"| {self.section} | {self.name} | {self.value} | {self.asked} | {mark} |"


def shared_folder() -> Path:
    """Where the data are.  Ends the program with the reason where there are none."""
    folder = Path(os.environ.get("LOCALMEL_SHARED", ROOT.parent / "shared"))
    if not (folder / "data" / "mel" / "kb").is_dir():
        sys.exit(f"no data at {folder}; set LOCALMEL_SHARED to the folder that holds data/mel")
    return folder


def main() -> None:
    """Run the sections asked for and print one table."""
    from bench import (
        ablations,
        clip,
        encoding,
        filtering,
        fusion,
        generation,
        importing,
        index,
        matchers,
        quality,
        speed,
    )

    sections: dict[str, Callable[[Path], list[Figure]]] = {
        "import": importing.measure,
        "encoding": encoding.measure,
        "fusion": fusion.measure,
        "quality": quality.measure,
        "speed": speed.measure,
        "index": index.measure,
        "ablations": ablations.measure,
        "generation": generation.measure,
        "clip": clip.measure,
        "filtering": filtering.measure,
        "matchers": matchers.measure,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[[], *sections])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    shared = shared_folder()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    print(f"commit {commit.stdout.strip() or 'unknown'}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| part | what | measured | asked | reached |\n|---|---|---|---|---|")
    figures: list[Figure] = []
    for name in given.sections or [name for name in sections if name not in ONLY_WHEN_NAMED]:
        for figure in sections[name](shared):
            figures.append(figure)
            print(figure.line(), flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
