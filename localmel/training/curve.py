"""How training went, to look at: history.json and training.png, made from the cards of the networks.

In: cards of networks.  Out: two files beside them.  Knows matplotlib, and draws without a screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from localmel.store.artifacts import failed_writes_are_reported, write_json


def write_history(folder: Path, cards: Sequence[Mapping[str, Any]], *, new: bool) -> None:
    """Write both files, unless they stand and nothing is `new`."""
    files = folder / "history.json", folder / "training.png"
    if not new and all(file.is_file() for file in files):
        return
    histories = {str(card["seed"]): card["history"] for card in cards}
    write_json(files[0], histories)
    _draw(files[1], histories)


def _draw(path: Path, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Loss and HITS of each seed over its epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")  # without pyplot, which would keep it; Agg draws
    losses, hits = figure.subplots(1, 2)
    for number, (seed, history) in enumerate(histories.items()):
        colour = f"C{number % 10}"
        losses.plot([epoch["number"] for epoch in history], [epoch["loss"] for epoch in history], color=colour)
        validated = [epoch for epoch in history if epoch["ranks"]]
        for name, style in (("hits_at_1", "-"), ("hits_at_16", "--")):
            hits.plot(
                [epoch["number"] for epoch in validated],
                [epoch["ranks"][name] for epoch in validated],
                style,
                color=colour,
                label=f"seed {seed}, {name.replace('hits_at_', 'HITS@')}",
            )
    losses.set(xlabel="epoch", title="loss in training")
    hits.set(xlabel="epoch", title="validation, by vectors alone")
    hits.legend(fontsize="small")
    with failed_writes_are_reported(path):
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as file:
            figure.savefig(file, format="png", metadata={"Software": None})
        temporary.replace(path)
