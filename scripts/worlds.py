"""Print which matcher, and which of its parts, finds an answer that lies in one place only.

    python scripts/worlds.py [--steps 300] [--seed 0] [--way NAME ...] [--world NAME ...] [--json]

One row for each way to match, one column for each world (bench/worlds.py): the share of mentions whose
entity comes first among 24.  Each cell is a network of its own, trained for seconds; all of them take about half an
hour on one core.  Needs no data and no weights."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

import torch

from bench.worlds import CHANCE, WAYS, WORLDS, recover


def main() -> None:
    """Train and print, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="drawings that each network is trained on")
    parser.add_argument("--seed", type=int, default=0, help="of weights and drawings")
    parser.add_argument("--way", action="append", choices=list(WAYS), help="only this row; may be given several times")
    parser.add_argument("--world", action="append", choices=[one.name for one in WORLDS], help="only this column")
    parser.add_argument("--json", action="store_true", help="one object for each cell instead of a table")
    given = parser.parse_args()
    torch.set_num_threads(1)  # the networks are tiny: more threads only wait for each other
    worlds = [one for one in WORLDS if not given.world or one.name in given.world]
    if not given.json:
        print(f"HITS@1 among {1 / CHANCE:.0f} entities (chance {CHANCE:.2f}), {given.steps} steps, seed {given.seed}\n")
        print(f"| | {' | '.join(world.name for world in worlds)} |\n|---|{'---|' * len(worlds)}")
    for way in given.way or WAYS:
        cells = []
        for number, world in enumerate(worlds, 1):
            print(f"{way}: {number} of {len(worlds)}", file=sys.stderr)
            found = recover(world, way, steps=given.steps, seed=given.seed)
            cells.append(found)
            if given.json:
                print(json.dumps(asdict(found)), flush=True)
        if not given.json:
            print(f"| {way} | {' | '.join(f'{cell.hits_at_1:.2f}' for cell in cells)} |", flush=True)


if __name__ == "__main__":
    main()
