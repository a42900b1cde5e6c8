"""Detectors of objects in pictures: a model from local weights, OpenCV's cascade for faces, or plain tiles.

In: an RGB picture.  Out: boxes.  A detector is chosen by name and never replaced by another: `tiles`, `faces`, the name
of installed weights, a path with a /, or several of these joined by +."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from localmel.errors import BadInput, CorruptArtifact, MissingExtra, MissingWeights, shell_line
from localmel.see.objects import Box, Detector
from localmel.store.artifacts import sha256_of

if TYPE_CHECKING:
    from PIL.Image import Image

_CASCADE = "haarcascade_frontalface_default.xml"


def open_detector(name: str, *, device: str = "auto") -> Detector:
    """Return a detector by name.

    Raises MissingWeights, MissingExtra or CorruptArtifact for one that cannot be used, BadInput for an empty name."""
    parts = [part.strip() for part in name.split("+")]
    if not all(parts):
        raise BadInput(
            f"{name!r} is not a detector", hint="tiles, faces, rtdetr-v2-r18 or a path with a /, joined by +"
        )
    found = [_opened(part, device) for part in parts]
    return found[0] if len(found) == 1 else SeveralDetectors(found)


def _opened(name: str, device: str) -> Detector:
    if name == "tiles":
        return Tiles()
    if name == "faces":
        return CascadeFaces()
    from localmel.weights.find import find_model

    try:
        folder = find_model(name).path
    except MissingWeights as error:
        raise MissingWeights(
            f"there is no detector {name!r} ({error.fact}); tiles need no weights", hint=error.hint
        ) from None
    return TransformersDetector(folder, device=device)


def same_boxes(one: Mapping[str, str] | None, other: Mapping[str, str] | None) -> bool:
    """Return whether detectors with these facts differ at most in the version of the library that runs them."""
    return _without_versions(one) == _without_versions(other)


def _without_versions(facts: Mapping[str, str] | None) -> dict[str, str] | None:
    if facts is None:
        return None
    return {name: value for name, value in facts.items() if name.rpartition(".")[2] not in ("opencv", "transformers")}


class Tiles:
    """Returns the quarters of a picture and its middle.  Needs no weights."""

    @property
    def facts(self) -> Mapping[str, str]:
        """Return the version."""
        return {"detector": "tiles 1"}

    def boxes(self, image: Image) -> Sequence[Box]:
        """Return five boxes, all with score 1."""
        width, height = image.size
        corners = [(left, top) for top in (0, height / 2) for left in (0, width / 2)]
        return [
            Box(left=left, top=top, right=left + width / 2, bottom=top + height / 2, label="tile")
            for left, top in (*corners, (width / 4, height / 4))
        ]


class CascadeFaces:
    """Finds faces that look at the camera, by the cascade that OpenCV 4 includes and OpenCV 5 does not."""

    def __init__(self) -> None:
        """Load the cascade.  Raises MissingExtra without an OpenCV that includes it."""
        pip = "pip install 'opencv-python-headless<5'"
        try:
            import cv2
        except ImportError as error:
            raise MissingExtra(f"cannot import OpenCV, which the face detector needs ({error})", hint=pip) from None
        if not hasattr(cv2, "CascadeClassifier"):
            raise MissingExtra(f"OpenCV {cv2.__version__} has no face cascade; OpenCV 4 has", hint=pip)
        path = Path(cv2.__file__).parent / "data" / _CASCADE
        if not path.is_file():
            raise MissingExtra(f"OpenCV {cv2.__version__} came without {_CASCADE}", hint=pip)
        self._cv2, self._cascade = cv2, cv2.CascadeClassifier(str(path))
        self._facts = {"detector": "faces 1", "opencv": str(cv2.__version__), "cascade": sha256_of(path)}

    @property
    def facts(self) -> Mapping[str, str]:
        """Return OpenCV's version and the hash of the cascade."""
        return self._facts

    def boxes(self, image: Image) -> Sequence[Box]:
        """Return the faces.  The score is by how much the last stage was passed, not a probability."""
        grey = np.asarray(image.convert("L"))
        places, _, weights = self._cascade.detectMultiScale3(
            grey, scaleFactor=1.1, minNeighbors=5, minSize=(24, 24), outputRejectLevels=True
        )
        return [
            Box(left=float(x), top=float(y), right=float(x + w), bottom=float(y + h), score=float(weight), label="face")
            for (x, y, w, h), weight in zip(places, np.ravel(weights), strict=True)
        ]


class TransformersDetector:
    """A detection model of transformers (DETR, RT-DETR and others of its Auto classes) from a folder.

    Only local files are read, weights as safetensors, and no code of the model is run."""

    def __init__(self, folder: Path, *, device: str = "auto", least_score: float = 0.5) -> None:
        """Hash the files; the model is loaded when it is first used.  Raises MissingExtra without transformers."""
        try:
            import transformers
        except ImportError as error:
            raise MissingExtra(
                f"cannot import transformers, which detectors from weights need ({error})",
                hint="pip install 'localmel[transformers]'",
            ) from None
        self._folder, self._device, self._least = folder, device, least_score
        files = {path.name: sha256_of(path) for path in sorted(folder.glob("*.json"))}
        files |= {path.name: sha256_of(path) for path in sorted(folder.glob("*.safetensors"))}
        if not any(name.endswith(".safetensors") for name in files):
            raise MissingWeights(f"{folder} has no weights as safetensors", hint="localmel weights list")
        self._facts = {
            "detector": "transformers 1",
            "files": hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest(),
            "transformers": str(transformers.__version__),
            "least_score": str(least_score),
        }

    @property
    def facts(self) -> Mapping[str, str]:
        """Return the hash of its files, the version of transformers, and the least score."""
        return self._facts

    def boxes(self, image: Image) -> Sequence[Box]:
        """Return boxes whose scores are probabilities, with the model's own labels."""
        import torch

        processor, model = self._model
        with torch.inference_mode():
            given = processor(images=[image], return_tensors="pt").to(model.device)
            made = model(**given)
        size = torch.tensor([(image.height, image.width)])
        found = processor.post_process_object_detection(made, threshold=self._least, target_sizes=size)[0]
        labels = model.config.id2label
        return [
            Box(left=left, top=top, right=right, bottom=bottom, score=score, label=str(labels.get(label, label)))
            for (left, top, right, bottom), score, label in zip(
                found["boxes"].tolist(), found["scores"].tolist(), found["labels"].tolist(), strict=True
            )
        ]

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        import torch
        from transformers import AutoImageProcessor, AutoModelForObjectDetection
        from transformers.utils import logging

        local = {"local_files_only": True, "trust_remote_code": False}
        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        kind = ("cuda" if torch.cuda.is_available() else "cpu") if self._device == "auto" else self._device
        try:
            processor = AutoImageProcessor.from_pretrained(self._folder, **local)  # type: ignore[no-untyped-call]
            model = AutoModelForObjectDetection.from_pretrained(self._folder, use_safetensors=True, **local)
            return processor, model.to(kind).eval()
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CorruptArtifact(
                f"cannot load {self._folder} as a detector ({reason})", hint=shell_line("ls -l", self._folder)
            ) from None
        finally:
            if bars:
                logging.enable_progress_bar()  # type: ignore[no-untyped-call]


class SeveralDetectors:
    """Several detectors as one.  Their scores cannot be compared, so that their best boxes take turns."""

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self._detectors = detectors

    @property
    def facts(self) -> Mapping[str, str]:
        """Return the facts of all of them, numbered."""
        return {
            f"{number}.{key}": value for number, one in enumerate(self._detectors) for key, value in one.facts.items()
        }

    def boxes(self, image: Image) -> Sequence[Box]:
        """Return the boxes of all; the score of each is 1 / rank in its detector."""
        made = []
        for one in self._detectors:
            ranked = sorted(one.boxes(image), key=lambda box: (-box.score, box.left, box.top, box.right, box.bottom))
            made += [
                Box(left=box.left, top=box.top, right=box.right, bottom=box.bottom, score=1 / rank, label=box.label)
                for rank, box in enumerate(ranked, 1)
            ]
        return made
