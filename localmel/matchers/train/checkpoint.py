"""Save the state of a training run after each epoch; a failed write leaves the previous checkpoint.

In: tensors by name, the epochs so far, and the facts that the run depends on.  Out: the same.
A checkpoint of other facts is refused with what differs; it is never continued with other inputs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localmel.errors import BadInput, CorruptArtifact, shell_line
from localmel.store.artifacts import new_folder, read_manifest

if TYPE_CHECKING:
    from torch import Tensor

KIND, VERSION = "training checkpoint", 1
_STATE = "state.safetensors"
_SHOWN = 40


def save_checkpoint(
    folder: Path, tensors: Mapping[str, Tensor], history: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> None:
    """Replace the checkpoint in `folder`.  Raises OutOfSpace, and then keeps the previous one."""
    from safetensors.torch import save

    kept = {"run": facts, "history": history}
    with (
        new_folder(folder, kind=KIND, version=VERSION, facts=kept) as temporary,
        (temporary / _STATE).open("wb") as file,
    ):
        file.write(save(dict(tensors)))
        file.flush()
        os.fsync(file.fileno())


def load_checkpoint(folder: Path, facts: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]] | None:
    """Return the tensors and the epochs; None if there is no checkpoint.  Raises CorruptArtifact, BadInput."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        manifest = read_manifest(folder, kind=KIND, version=VERSION, every_byte=True)
    except FileNotFoundError:
        return None
    try:
        refuse_other_facts(folder, manifest["run"], facts)
        return load((folder / _STATE).read_bytes()), [dict(epoch) for epoch in manifest["history"]]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise broken(folder, error) from None


def refuse_other_facts(folder: Path, found: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise BadInput, listing the differences, if the content of `folder` was made from other facts."""
    there, here = dict(_flat(found)), dict(_flat(json.loads(json.dumps(now))))
    if different := [name for name in {**here, **there} if here.get(name) != there.get(name)]:
        words = [f"{name} {_short(there.get(name))} there, {_short(here.get(name))} now" for name in different[:4]]
        more = f" and {len(different) - 4} more" if len(different) > 4 else ""
        raise BadInput(
            f"{folder} is of a run with other settings or inputs: {'; '.join(words)}{more}",
            hint=shell_line("rm -r", folder, note="or choose another --out"),
        )


def broken(folder: Path, error: object) -> CorruptArtifact:
    """Return the error for a checkpoint whose content does not fit together."""
    return CorruptArtifact(
        f"{folder} holds no training that could go on ({error})",
        hint=shell_line("rm -r", folder, note="then run the same command again"),
    )


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _short(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}..."
