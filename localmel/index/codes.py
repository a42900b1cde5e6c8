"""Store vectors as codes, and score queries against them.

In: unit vectors as float32 tensors.  Out: arrays of codes; approximate scores of all of them for a scan; exact scores
of the few candidates that a scan has found.  Queries are quantised for the scan only: candidates are scored again by
the exact query, so that each score is rounded once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Parts = Mapping[str, "Tensor"]
_FEW = 4
"Up to this many queries, bits are counted rather than unpacked for a product, and float16 is not widened."


class Scratch:
    """Arrays that a search reuses, so that the system need not provide fresh pages at each step."""

    def __init__(self) -> None:
        self._held: dict[Any, Tensor] = {}

    def __call__(self, rows: int, columns: int, dtype: Any, device: Any, use: str = "") -> Tensor:
        import torch

        held = self._held.get((dtype, use))
        if held is None or held.numel() < rows * columns:
            held = self._held[dtype, use] = torch.empty(rows * columns, dtype=dtype, device=device)
        return held[: rows * columns].view(rows, columns)


class Codes(Protocol):
    """One way to store vectors.  In shapes, n is the number of rows, m that of queries, w the width."""

    rescored: int
    "How many candidates per result are scored again, unless the settings say otherwise."

    def layout(self, width: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return for each part its NumPy type in the file and the shape of one row."""
        ...

    def slack(self, queries: Tensor) -> float | None:
        """Return how far a scan's score can be from the exact one, or None if there is no useful bound."""
        ...

    def encode(self, vectors: Tensor) -> dict[str, Tensor]:
        """Return the parts of vectors (n, w) float32."""
        ...

    def ready(self, queries: Tensor) -> Any:
        """Return queries (m, w) float32 in the form that `scan` takes."""
        ...

    def scan(self, ready: Any, rows: Parts, scratch: Scratch) -> Tensor:
        """Return scores (m, n) of any float type; each query has a scale of its own unless `slack` is a number."""
        ...

    def products(self, queries: NDArray[Any], rows: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return exact scores (m, c) float32 of queries (m, w) with the rows (m, c, ...) of each query.

        The order of summation does not depend on a row's position, so that equal rows get equal scores."""
        ...


class FloatCodes:
    """Stores vectors as floats of 4 or 2 bytes."""

    def __init__(self, kind: str) -> None:
        import torch

        self._type = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[kind]
        self._file = {"float32": "<f4", "float16": "<f2", "bfloat16": "|i1"}[kind]
        self._bytes = 2 if kind == "bfloat16" else 1  # NumPy has no bfloat16, so its bytes are stored
        self.rescored = {"float32": 1, "float16": 2, "bfloat16": 8}[kind]

    def layout(self, width: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {"codes": (self._file, (width * self._bytes,))}

    def _half(self, queries: Tensor) -> bool:
        """Return whether to multiply in 2 bytes; a CPU multiplies float16 fast only for few queries."""
        import torch

        if self._type == torch.float16:
            return queries.device.type == "cuda" or len(queries) <= _FEW
        return self._type == torch.bfloat16

    def slack(self, queries: Tensor) -> float | None:
        import torch

        if not self._half(queries):
            return 1e-6 + queries.shape[1] * 2.0**-23
        return 2 * torch.finfo(self._type).eps  # rounding of the query and of the score

    def encode(self, vectors: Tensor) -> dict[str, Tensor]:
        import torch

        codes = vectors.to(self._type)
        return {"codes": codes.view(torch.int8) if self._bytes == 2 else codes}

    def _vectors(self, rows: Parts) -> Tensor:
        return rows["codes"].view(self._type)

    def ready(self, queries: Tensor) -> Tensor:
        return queries.to(self._type) if self._half(queries) else queries

    def scan(self, ready: Any, rows: Parts, scratch: Scratch) -> Tensor:
        import torch

        codes = self._vectors(rows)
        out = scratch(len(ready), len(codes), ready.dtype, codes.device)
        if codes.dtype != ready.dtype:
            codes = scratch(len(codes), codes.shape[1], ready.dtype, codes.device, "wide").copy_(codes)
        return torch.mm(ready, codes.T, out=out)

    def products(self, queries: NDArray[Any], rows: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        import torch

        codes = rows["codes"]
        if self._type == torch.bfloat16:  # the upper half of a float32
            codes = (codes.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        exact: NDArray[Any] = np.einsum("mcw,mw->mc", codes.astype(np.float64), queries.astype(np.float64))
        return exact.astype(np.float32)


class Int8Codes:
    """Stores vectors as integers of one byte with one scale per vector: the largest coordinate becomes 127."""

    rescored = 2

    def layout(self, width: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {"scales": ("<f4", ()), "codes": ("|i1", (width,))}

    def slack(self, queries: Tensor) -> float | None:
        return None

    def encode(self, vectors: Tensor) -> dict[str, Tensor]:
        import torch

        scales = vectors.abs().amax(dim=1) / 127
        return {"scales": scales, "codes": (vectors / scales[:, None]).round_().to(torch.int8)}

    def ready(self, queries: Tensor) -> Tensor:
        return self.encode(queries)["codes"]

    def scan(self, ready: Any, rows: Parts, scratch: Scratch) -> Tensor:
        import torch

        whole = _whole_product(ready, rows["codes"], scratch)
        out = scratch(len(ready), len(rows["codes"]), torch.float32, whole.device)
        return torch.mul(whole, rows["scales"], out=out)

    def products(self, queries: NDArray[Any], rows: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        whole: NDArray[Any] = np.einsum("mcw,mw->mc", rows["codes"].astype(np.float32), queries)
        scaled: NDArray[Any] = whole * rows["scales"]
        return scaled


class BinaryCodes(Int8Codes):
    """Stores the signs of the coordinates as bits for the scan, and int8 codes for exact scores."""

    rescored = 32

    def layout(self, width: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {**super().layout(width), "bits": ("|i1", (-(-width // 64) * 8,))}

    def encode(self, vectors: Tensor) -> dict[str, Tensor]:
        import torch

        n_bytes = -(-vectors.shape[1] // 64) * 8  # whole words of 8 bytes; unused bits are 0
        bits = np.zeros((len(vectors), n_bytes), np.uint8)
        packed = np.packbits((vectors > 0).cpu().numpy(), axis=1, bitorder="little")
        bits[:, : packed.shape[1]] = packed
        return {**super().encode(vectors), "bits": torch.from_numpy(bits.view(np.int8)).to(vectors.device)}

    def ready(self, queries: Tensor) -> Tensor:
        return self.encode(queries)["bits"]

    def scan(self, ready: Any, rows: Parts, scratch: Scratch) -> Tensor:
        """Return the number of equal bits minus the number of different ones."""
        import torch

        bits = rows["bits"]
        if len(ready) > _FEW or bits.device.type != "cpu":
            whole = _whole_product(_signs(ready), _signs(bits), scratch)
            return torch.mul(whole, 1.0, out=scratch(len(ready), len(bits), torch.float32, whole.device))
        words = bits.numpy().view(np.uint64)
        out = np.empty((len(ready), len(words)), np.float32)
        for row, query in zip(out, ready.numpy().view(np.uint64), strict=True):
            np.add.reduce(np.bitwise_count(words ^ query), axis=1, dtype=np.float32, out=row)
        return torch.from_numpy(out).mul_(-2).add_(bits.shape[1] * 8)


def _whole_product(one: Tensor, other: Tensor, scratch: Scratch) -> Tensor:
    """Return the exact products (m, n) of int8 (m, w) and (n, w); as floats where a GPU cannot take the shapes."""
    import torch
    from torch.nn.functional import pad

    if one.device.type == "cpu":
        out = scratch(len(one), len(other), torch.int32, one.device)
        return torch._int_mm(one, other.T, out=out)
    if one.shape[1] % 8 or len(other) % 8:
        return one.float() @ other.float().T
    padded = pad(one, (0, 0, 0, -len(one) % 32))
    return torch._int_mm(padded, other.T)[: len(one)]


@cache
def _sign_words() -> Any:
    """Return for each byte its 8 bits as 8 bytes, each 1 or -1, (256,) int64."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return (bits.astype(np.int8) * 2 - 1).view(np.int64)[:, 0]


def _signs(bits: Tensor) -> Tensor:
    """Unpack bits (n, b) to (n, 8 b) int8, each 1 or -1."""
    import torch

    if bits.device.type == "cpu":
        words = _sign_words().take(bits.numpy().view(np.uint8))
        return torch.from_numpy(words).view(torch.int8)
    table = torch.from_numpy(_sign_words()).to(bits.device)
    return table[bits.view(torch.uint8).int()].view(torch.int8)


def codes_of(kind: str) -> Codes:
    """Return the way to store vectors for an exact kind of index."""
    if kind == "int8":
        return Int8Codes()
    if kind == "binary":
        return BinaryCodes()
    return FloatCodes(kind)
