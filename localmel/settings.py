"""What can be set, field by field, and the profiles that set it.

In: the name of a profile or a TOML file.  Out: frozen settings, saved with every run.  An unknown key is an error.
Also the switches that keep every library offline; they are set before any heavy import."""

from __future__ import annotations

import math
import os
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from localmel.errors import UsageError

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",
}
"Telemetry off, hubs off.  Read by the libraries when they are imported, so set before."

HOME = "LOCALMEL_HOME"
"The variable that says where KBs and caches stand; without it, the usual folder of the platform."


def go_offline() -> None:
    """Set the switches of OFFLINE in this process and, by inheritance, in every worker."""
    os.environ.update(OFFLINE)


def home_folder() -> Path:
    """Where KBs and derived files of this user stand."""
    if chosen := os.environ.get(HOME):
        return Path(chosen).expanduser()
    from platformdirs import user_data_path

    return user_data_path("localmel", appauthor=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Which model runs, and how."""

    engine: str = ""
    "`vllm`, `transformers`, `server` (OpenAI-compatible, on loopback) or `scripted`; empty where no model is used."
    weights: str = ""
    "Name in the catalog of weights, or a path with a /.  For `server` the model's name there."
    quantization: str = ""
    "`4bit` or `8bit` (bitsandbytes), `awq`, `gptq`, `compressed-tensors`, `fp8`; empty takes the weights as they are."
    dtype: str = "auto"
    "`auto`, `float32`, `float16` or `bfloat16`."
    device: str = "auto"
    "`auto`, `cuda` or `cpu`."
    tensor_parallel: int = 1
    "Over how many GPUs each layer is split (vllm)."
    pipeline_parallel: int = 1
    "Over how many GPUs the layers are spread (vllm)."
    context: int = 0
    "Tokens of prompt and answer together; 0 takes what the model was made for."
    memory_share: float = 0.9
    "Of the GPU's memory (vllm)."
    at_once: int = 32
    "How many requests are under way at a time."
    longest_side: int = 1344
    "Pictures are scaled down to this many pixels before a model sees them."
    url: str = "http://127.0.0.1:8000/v1"
    "Where the server listens (server)."
    allow_remote: bool = False
    "Permits a `url` that is not on this machine: pictures and texts then leave it."
    timeout: float = 600.0
    "Seconds until an answer of a server, or a start of a model, counts as failed."


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateSettings:
    """How triples about a mention are made."""

    backend: str = "embedded"
    "`embedded`: writing in the picture, appositions, relations induced from the sentence; `vlm`: a model is asked."
    model: EngineSettings = EngineSettings()
    "The vision-language model of `vlm`."
    format: str = "json"
    "`json`: the answer follows a schema; `line`: the lines of the paper, for models that cannot follow one."
    most_triples: int = 8
    "Per mention (vlm)."
    max_tokens: int = 1024
    "Of one answer (vlm)."
    temperature: float = 0.0
    "Of the first attempt; repeated attempts take 0.7 (vlm)."
    retries: int = 2
    "How often a question whose answer cannot be read is asked again, with another seed (vlm)."
    seed: int = 0
    read_writing: bool = True
    "Keep what is written in the picture and said beside the name beside what the model says (vlm)."
    least_confidence: float = 0.6
    "Visible lines the reader is less sure of are left out: misread words are worse evidence than none."
    most_lines: int = 32
    "Of a picture with more lines the surest are kept."
    most_induced: int = 4
    "How many phrases of the candidates found by name the sentence may confirm."
    least_similarity: float = 0.4
    "Cosine between sentence and phrase under which nothing is induced."


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeSettings:
    """Which model makes vectors."""

    model: str = "all-MiniLM-L6-v2"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieveSettings:
    """Where candidates come from."""

    by_name: int = 64
    "At most this many entities whose name fits the surface."
    by_vector: int = 16
    "And this many whose fused vector is nearest to the mention's."
    network: str = "kgmel-minilm"
    "Folder of the fusion network: a name under weights/, or a path with a /."
    use_counts: bool = True
    "Order equal names by popularity and number of triples."


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankSettings:
    """How one candidate is chosen."""

    backend: str = "evidence"
    "`evidence`: the trained, calibrated scorer; `llm`: a model is asked to choose among the scorer's best."
    model: EngineSettings = EngineSettings()
    "The language model of `llm`."
    most_candidates: int = 16
    "How many the model chooses among (llm)."
    most_relations: int = 10
    "n of the triple filter: relations kept per mention triple (llm)."
    most_tails: int = 10
    "n of the triple filter: tails kept per mention triple (llm)."
    evidence_first: bool = False
    "The model names the supporting triples before it chooses; slower (llm)."
    orders: int = 1
    "How many shuffled orders of the candidates are asked and averaged (llm)."
    route_from: float = 0.0
    "Mentions of which the scorer is at least this sure skip the model; 0 asks for all (llm)."
    calibration: str = ""
    "File with temperature and NIL threshold fitted on validation; empty takes the probabilities as they are (llm)."
    seed: int = 0
    weights: str = "evidence-scorer"
    "Its folder: a name under weights/, or a path with a /."
    nil_from: float = 0.5
    "The answer is NIL when the probability that no candidate is right reaches this."
    most_evidence: int = 4
    "How many matched pairs of triples are reported with a link."


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One backend with its settings for each stage."""

    name: str
    summary: str = ""
    generate: GenerateSettings = GenerateSettings()
    encode: EncodeSettings = EncodeSettings()
    retrieve: RetrieveSettings = RetrieveSettings()
    rerank: RerankSettings = RerankSettings()


_SHIPPED = Path(__file__).parent / "profiles"
_STAGES: dict[str, type[Any]] = {
    "generate": GenerateSettings,
    "encode": EncodeSettings,
    "retrieve": RetrieveSettings,
    "rerank": RerankSettings,
}
_ENGINES = ("", "vllm", "transformers", "server", "scripted")
_CHOICES = {
    ("generate", "backend"): ("embedded", "vlm"),
    ("generate", "format"): ("json", "line"),
    ("encode", "model"): ("all-MiniLM-L6-v2",),
    ("rerank", "backend"): ("evidence", "llm"),
}


def load_profile(name: str) -> Profile:
    """A shipped profile by name, or one from a TOML file by path.  Raises UsageError."""
    path = _SHIPPED / f"{name}.toml" if "/" not in name and not name.endswith(".toml") else Path(name)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        shipped = ", ".join(sorted(file.stem for file in _SHIPPED.glob("*.toml")))
        raise UsageError(
            f"there is no profile {name!r}; this version has {shipped}", hint="--profile embedded"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not a profile ({error})") from None
    return profile_from(table, where=str(path))


def profile_from(table: dict[str, Any], *, where: str) -> Profile:
    """A profile from a parsed table; every key must be known and of the right type."""
    table, stages = dict(table), {}
    for stage, kind in _STAGES.items():
        given = table.pop(stage, {})
        if not isinstance(given, dict):
            raise UsageError(f"{where}: {stage} is no table")
        stages[stage] = kind(**_checked(given, kind, f"{where}: [{stage}]"))
        if (model := getattr(stages[stage], "model", None)) and isinstance(model, EngineSettings):
            _check_engine(model, used=stages[stage].backend in ("vlm", "llm"), where=f"{where}: [{stage}.model]")
    for (stage, key), choices in _CHOICES.items():
        if (chosen := getattr(stages[stage], key)) not in choices:
            raise UsageError(f"{where}: [{stage}] has {key} {chosen!r}; this version has {', '.join(choices)}")
    if "name" not in table:
        raise UsageError(f"{where}: a profile needs a name")
    return Profile(**_checked(table, Profile, where), **stages)


def _check_engine(model: EngineSettings, *, used: bool, where: str) -> None:
    if model.engine not in _ENGINES or (used and not model.engine):
        raise UsageError(f"{where} has engine {model.engine!r}; this version has {', '.join(_ENGINES[1:])}")
    if model.engine and not model.weights:
        raise UsageError(f"{where} names no weights", hint="localmel weights list")


def _checked(table: dict[str, Any], kind: type[Any], where: str) -> dict[str, Any]:
    known = {field.name: str(field.type) for field in fields(kind) if field.name not in _STAGES}
    checked = dict(table)
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"{where} has an unknown key {key!r}; known are {', '.join(known)}")
        if known[key] == "EngineSettings":
            if not isinstance(value, dict):
                raise UsageError(f"{where}: {key} is no table")
            checked[key] = EngineSettings(**_checked(value, EngineSettings, f"{where[:-1]}.{key}]"))
            continue
        expected: tuple[type, ...] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}[known[key]]
        if not isinstance(value, expected) or (isinstance(value, bool) and known[key] != "bool"):
            raise UsageError(f"{where}: {key} must be {known[key]}, not {value!r}")
        if isinstance(value, int | float) and not 0 <= value < math.inf:
            raise UsageError(f"{where}: {key} must be 0 or more, not {value!r}")
    return checked
