"""All settings, field by field: frozen, free of I/O, saved with every run.

A profile holds one backend with its settings for each stage."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """The model that runs, and how it runs."""

    engine: str = ""
    "`vllm`, `transformers`, `server` (OpenAI-compatible, on loopback) or `scripted`; empty if no model is used."
    weights: str = ""
    "Name in the catalog of weights, or a path with a /.  For `server`, the name of the model there."
    quantization: str = ""
    "`4bit` or `8bit` (bitsandbytes), `awq`, `gptq`, `compressed-tensors`, `fp8`; empty loads the weights unchanged."
    dtype: str = "auto"
    "`auto`, `float32`, `float16` or `bfloat16`."
    device: str = "auto"
    "`auto`, `cuda` or `cpu`."
    tensor_parallel: int = 1
    "Number of GPUs that each layer is split over (vllm)."
    pipeline_parallel: int = 1
    "Number of GPUs that the layers are spread over (vllm)."
    context: int = 0
    "Tokens of prompt and answer together; 0 takes the model's own limit."
    memory_share: float = 0.9
    "Share of the GPU's memory to use (vllm)."
    at_once: int = 32
    "Number of requests in progress at a time."
    longest_side: int = 1344
    "Pixels that pictures are scaled down to before a model sees them."
    url: str = "http://127.0.0.1:8000/v1"
    "Address of the server (server)."
    allow_remote: bool = False
    "Allow a `url` that is not on this machine; pictures and texts then leave it."
    timeout: float = 600.0
    "Seconds before a server's answer, or the start of a model, counts as failed."


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateSettings:
    """Settings of the generation of triples."""

    backend: str = "embedded"
    "`embedded`: writing in the picture, appositions, relations induced from the sentence; `vlm`: ask a model."
    model: EngineSettings = EngineSettings()
    "The vision-language model of `vlm`."
    format: str = "json"
    "`json`: the answer follows a schema; `line`: the lines of the paper, for models that cannot follow a schema."
    most_triples: int = 8
    "Most triples per mention (vlm)."
    max_tokens: int = 1024
    "Most tokens of one answer (vlm)."
    temperature: float = 0.0
    "Sampling temperature of the first attempt; repeated attempts use 0.7 (vlm)."
    retries: int = 2
    "How often to ask again, with another seed, when an answer cannot be read (vlm)."
    seed: int = 0
    read_writing: bool = True
    "Add the writing in the picture and the appositions of the sentence to the model's triples (vlm)."
    least_confidence: float = 0.6
    "Confidence below which visible lines are left out: misread words are worse evidence than none."
    most_lines: int = 32
    "Most visible lines per picture; the most confident ones are kept."
    most_induced: int = 4
    "Most phrases of the candidates found by name that the sentence may confirm."
    least_similarity: float = 0.4
    "Cosine between sentence and phrase below which nothing is induced."


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeSettings:
    """The model that makes vectors."""

    model: str = "all-MiniLM-L6-v2"
    "`all-MiniLM-L6-v2`, a CLIP model by its name in the catalog of weights, or a path with a / (CLIP or tuned)."


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieveSettings:
    """Settings of retrieval."""

    by_name: int = 64
    "Most entities whose name matches the surface."
    by_vector: int = 16
    "Most entities by the distance of their fused vector to the mention's."
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
    """Settings of reranking."""

    backend: str = "evidence"
    "`evidence`: the trained, calibrated scorer; `llm`: a model chooses among the scorer's best."
    model: EngineSettings = EngineSettings()
    "The language model of `llm`."
    most_candidates: int = 16
    "Number of candidates that the model chooses among (llm)."
    most_relations: int = 10
    "n of the triple filter: relations kept per mention triple (llm)."
    most_tails: int = 10
    "n of the triple filter: tails kept per mention triple (llm)."
    evidence_first: bool = False
    "The model names the supporting triples before it chooses; slower (llm)."
    orders: int = 1
    "Number of shuffled orders of the candidates to ask about and average (llm)."
    route_from: float = 0.0
    "Probability from which the scorer's answer stands without asking the model; 0 always asks (llm)."
    calibration: str = ""
    "File with temperature and NIL threshold fitted on validation; empty uses the raw probabilities (llm)."
    seed: int = 0
    weights: str = "evidence-scorer"
    "Folder of the scorer: a name under weights/, or a path with a /."
    nil_from: float = 0.5
    "Probability that no candidate is right from which the answer is NIL."
    most_evidence: int = 4
    "Most matched pairs of triples to report with a link."


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One backend with its settings for each stage."""

    name: str
    summary: str = ""
    generate: GenerateSettings = GenerateSettings()
    encode: EncodeSettings = EncodeSettings()
    retrieve: RetrieveSettings = RetrieveSettings()
    rerank: RerankSettings = RerankSettings()
