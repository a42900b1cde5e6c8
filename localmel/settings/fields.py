"""What can be set, field by field: frozen, free of I/O, saved with every run.

A profile holds one backend with its settings for each stage."""

from __future__ import annotations

from dataclasses import dataclass


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
    "`all-MiniLM-L6-v2`; a CLIP model by its name in the catalog of weights; or a path with a /: of a CLIP, or tuned."


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieveSettings:
    """Where candidates come from."""

    by_name: int = 64
    "At most this many entities whose name fits the surface."
    by_vector: int = 16
    "And this many whose fused vector is nearest to the mention's."
    matcher: str = "kgmel"
    "`kgmel`: the fusion network; else the folder of a trained matcher: a name under weights/, or a path with a /."
    network: str = "kgmel-minilm"
    "Folder of the fusion network: a name under weights/, or a path with a /."
    index: str = "auto"
    "How fused vectors are searched: scan, float32, float16, bfloat16, int8, binary, hnsw, hnsw-axes, auto (by size)."
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
