"""How long an import takes and how much memory it needs, each run in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.run import Figure

_PROGRAM = """
import json, resource, sys, time
from pathlib import Path
from bench.mel_kb import source_of
from localmel.kb.importers import Problems
from localmel.kb.write import build_kb
problems = Problems()
start = time.perf_counter()
changed = build_kb(Path(sys.argv[2]) / "kb", source_of(Path(sys.argv[1]), problems), problems)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "peak": peak, "entities": changed.entities, "triples": changed.triples}))
"""


def measure(shared: Path) -> list[Figure]:
    """Three imports of the benchmark KB; the best time, the highest peak."""
    runs = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", _PROGRAM, str(shared), folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            runs.append(json.loads(done.stdout))
    seconds, peak = min(run["seconds"] for run in runs), max(run["peak"] for run in runs)
    what = f"{runs[0]['entities']:,} entities, {runs[0]['triples']:,} triples"
    every = ", ".join(f"{run['seconds']:.1f}" for run in runs)
    return [
        Figure(
            section="import", name=f"{what}, seconds", value=f"{seconds:.1f} (runs {every})", asked="at most 15",
            reached=seconds <= 15,
        ),
        Figure(section="import", name="peak MiB", value=f"{peak:.0f}", asked="under 600", reached=peak < 600),
    ]  # fmt: skip
