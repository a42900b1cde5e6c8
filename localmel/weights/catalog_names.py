"""Whether weights that are to bear a name of the catalog can be that model.

In: a name, a folder.  Out: nothing, or BadInput that says what differs: architecture, or the count of numbers."""

from __future__ import annotations

from pathlib import Path

from localmel.errors import BadInput
from localmel.weights.catalog import MINILM, catalog
from localmel.weights.complete import whole_model

_NEARLY, _ROUGHLY = 1.25, 2.0
"""By what factor the numbers in the tensors may differ from the catalog's count: where the catalog tells the
architecture too (files may hold a tied output layer once more), and where it does not."""
_PACKED = 8
"Weights of 4 bit are packed up to eight to a number."


def check_catalog_name(name: str, folder: Path, shown: str, *, hint: str = "--name OTHER") -> None:
    """Whether a folder's model can be what the catalog calls so; other names are free.

    shown: what holds it, in the message; hint: how it gets another name.  Raises BadInput."""
    known = next((one for one in (MINILM.name, *catalog()) if one.casefold() == name.casefold()), None)
    if known is None:
        return
    if known != name:
        other = "--name OTHER" if known == MINILM.name else f"--name {known}   # if it is that model; else --name OTHER"
        raise BadInput(f"{name!r} differs from {known!r} of the catalog in upper and lower case only", hint=other)
    entry, whole = catalog()[name], whole_model(folder)
    kind = "open_clip" if whole.for_open_clip else str(whole.configuration.get("model_type") or "")
    if entry.model_type and kind and kind != entry.model_type:
        fact = f"{shown} is no {name}: its architecture is {kind!r}, the catalog says {entry.model_type!r}"
        raise BadInput(fact, hint=hint)
    most = entry.parameters * (_NEARLY if entry.model_type else _ROUGHLY)
    least = entry.parameters**2 / most / (_PACKED if whole.configuration.get("quantization_config") else 1)
    if not least <= whole.n_parameters <= most:
        counts = f"its tensors hold {whole.n_parameters:,} numbers, the catalog says {entry.parameters:,}"
        raise BadInput(f"{shown} is no {name}: {counts}", hint=hint)
