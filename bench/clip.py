"""How fast CLIP ViT-B/32 makes vectors on this CPU, and what leaving out the padding of texts is worth.

    python -m bench.clip

The model has the published size and random weights: the time does not depend on their values.  Texts are labels and
descriptions of the benchmark KB, pictures the portraits in the shared data.  Rounds alternate, on one thread, and time
is the processor's, so that neighbours on the machine count little."""

from __future__ import annotations

import gzip
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.run import Figure, shared_folder
from localmel.encode.clip import Clip
from localmel.encode.clip_folder import read_clip_folder
from localmel.encode.clip_model import load_clip
from localmel.engines.pictures import open_picture

TEXTS, PICTURES, ROUNDS, PLAIN_BATCH = 156, 32, 3, 26


def measure(shared: Path) -> list[Figure]:
    """Texts with and without padding, pictures opened and encoded, all on the CPU in float32."""
    import numpy as np
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = _random_model(Path(temporary))
        ours, plain = Clip(folder, device="cpu"), load_clip(read_clip_folder(folder), device="cpu")
        texts = _texts(shared)
        tokens = plain.tokenize(texts)
        ours.encode(texts[:PLAIN_BATCH])

        def padded() -> Any:
            with torch.inference_mode():
                parts = [plain.network.encode_text(batch, normalize=True) for batch in tokens.split(PLAIN_BATCH)]
            return torch.cat(parts).numpy()

        times: dict[str, list[float]] = {"padded": [], "ours": []}
        vectors = {}
        for _ in range(ROUNDS):
            for name, encode in (("padded", padded), ("ours", lambda: ours.encode(texts))):
                started = time.process_time()
                vectors[name] = encode()
                times[name].append(time.process_time() - started)
        paths = sorted((shared / "data" / "images" / "presidents").rglob("*.jpg"))[:PICTURES]
        seen = []
        for _ in range(ROUNDS):
            started = time.process_time()
            ours.encode_images(open_picture(path) for path in paths)
            seen.append(time.process_time() - started)
    ratios = [slow / fast for slow, fast in zip(times["padded"], times["ours"], strict=True)]
    value = f"{np.median(ratios):.1f} (rounds {', '.join(f'{ratio:.1f}' for ratio in ratios)})"
    difference = f"{np.abs(vectors['padded'] - vectors['ours']).max():.1e}"
    torch.set_num_threads(threads)
    return [
        Figure(section="clip", name="texts per processor second, padded", value=f"{TEXTS / min(times['padded']):.0f}"),
        Figure(section="clip", name="texts per processor second", value=f"{TEXTS / min(times['ours']):.0f}"),
        Figure(section="clip", name="times the padded form", value=value),
        Figure(section="clip", name="largest difference of a number in a vector", value=difference),
        Figure(
            section="clip",
            name="pictures per processor second, opened and encoded",
            value=f"{len(paths) / min(seen):.1f}",
        ),
    ]


def _texts(shared: Path) -> list[str]:
    """Label and description of every 300th entity."""
    texts: list[str] = []
    with gzip.open(shared / "data" / "mel" / "kb" / "entities.jsonl.gz", "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number % 300 == 0 and len(texts) < TEXTS:
                row = json.loads(line)
                texts.append(f"{row['label']}: {row.get('description') or ''}")
    return texts


def _random_model(folder: Path) -> Path:
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = open_clip.get_model_config("ViT-B-32")
    weights = open_clip.CLIP(**open_clip.get_model_config("ViT-B-32")).state_dict()
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "open_clip_model.safetensors")
    prepared = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
    config = {"model_cfg": model, "preprocess_cfg": prepared}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


if __name__ == "__main__":
    for figure in measure(shared_folder()):
        print(figure.line())
