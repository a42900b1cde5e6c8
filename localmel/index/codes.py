"""How an exact index stores vectors, and how it scans what it stores.

In: unit vectors as float32 tensors.  Out: arrays of codes; scores of queries against codes, fast and nearly right; the
vectors again, for the second look.  A scan never rounds twice what the second look can do once: queries are
quantised for the scan only, and the candidates it finds are scored by the query as it came."""

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
    """Arrays that one search uses again and again, so that the system does not hand out fresh pages each time."""

    def __init__(self) -> None:
        self._held: dict[Any, Tensor] = {}

    def __call__(self, rows: int, columns: int, dtype: Any, device: Any, use: str = "") -> Tensor:
        import torch

        held = self._held.get((dtype, use))
        if held is None or held.numel() < rows * columns:
            held = self._held[dtype, use] = torch.empty(rows * columns, dtype=dtype, device=device)
        return held[: rows * columns].view(rows, columns)


class Codes(Protocol):
    """One way to store vectors.  n rows, m queries, w the width."""

    rescored: int
    "Candidates per result that the second look gets, unless the settings say otherwise."

    def layout(self, width: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Name of a part -> NumPy type in the file, shape of one row."""
        ...

    def slack(self, queries: Tensor) -> float | None:
        """How far a scan's score can lie from that of the second look; None where no useful bound is known."""
        ...

    def encode(self, vectors: Tensor) -> dict[str, Tensor]:
        """(n, w) float32 -> parts."""
        ...

    def ready(self, queries: Tensor) -> Any:
        """(m, w) float32 -> the queries as `scan` wants them."""
        ...

    def scan(self, ready: Any, rows: Parts, scratch: Scratch) -> Tensor:
        """-> (m, n) scores of any float type, on a scale of its own for each query unless `slack` is a number."""
        ...

    def products(self, queries: NDArray[Any], rows: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """queries: (m, w) float32; rows: (m, c, ...), each query's own.  -> (m, c) float32, the second look.

        Each product is summed in the same order wherever its row stands, so that equal rows score the same."""
        ...


class FloatCodes:
    """Vectors as floats of 4 or 2 bytes."""

    def __init__(self, kind: str) -> None:
        import torch

        self._type = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[kind]
        self._file = {"float32": "<f4", "float16": "<f2", "bfloat16": "|i1"}[kind]
        self._bytes = 2 if kind == "bfloat16" else 1  # safetensors has bfloat16, NumPy has not: stored as its bytes
        self.rescored = {"float32": 1, "float16": 2, "bfloat16": 8}[kind]

    def layout(self, width: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {"codes": (self._file, (width * self._bytes,))}

    def _half(self, queries: Tensor) -> bool:
        """Whether products are taken in 2 bytes: a processor multiplies float16 quickly for few queries only."""
        import torch

        if self._type == torch.float16:
            return queries.device.type == "cuda" or len(queries) <= _FEW
        return self._type == torch.bfloat16

    def slack(self, queries: Tensor) -> float | None:
        import torch

        if not self._half(queries):
            return 1e-6 + queries.shape[1] * 2.0**-23
        return 2 * torch.finfo(self._type).eps  # the query rounded, and the score rounded

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
    """Vectors as whole numbers of one byte, and one scale per vector: the largest coordinate becomes 127."""

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
    """The signs of the coordinates, packed to bits, for the scan; int8 for the second look."""

    rescored = 32

    def layout(self, width: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {**super().layout(width), "bits": ("|i1", (-(-width // 64) * 8,))}

    def encode(self, vectors: Tensor) -> dict[str, Tensor]:
        import torch

        n_bytes = -(-vectors.shape[1] // 64) * 8  # whole words of 8 bytes; the bits left over are 0 everywhere
        bits = np.zeros((len(vectors), n_bytes), np.uint8)
        packed = np.packbits((vectors > 0).cpu().numpy(), axis=1, bitorder="little")
        bits[:, : packed.shape[1]] = packed
        return {**super().encode(vectors), "bits": torch.from_numpy(bits.view(np.int8)).to(vectors.device)}

    def ready(self, queries: Tensor) -> Tensor:
        return self.encode(queries)["bits"]

    def scan(self, ready: Any, rows: Parts, scratch: Scratch) -> Tensor:
        """Number of equal bits less number of different ones."""
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
    """(m, w) and (n, w) int8 -> (m, n): whole numbers, exact (in floats on a GPU that cannot take the shapes)."""
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
    """(256,) int64: the 8 bits of a byte as 8 bytes, each 1 or -1."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return (bits.astype(np.int8) * 2 - 1).view(np.int64)[:, 0]


def _signs(bits: Tensor) -> Tensor:
    """(n, b) packed -> (n, 8 b) int8, each 1 or -1."""
    import torch

    if bits.device.type == "cpu":
        words = _sign_words().take(bits.numpy().view(np.uint8))
        return torch.from_numpy(words).view(torch.int8)
    table = torch.from_numpy(_sign_words()).to(bits.device)
    return table[bits.view(torch.uint8).int()].view(torch.int8)


def codes_of(kind: str) -> Codes:
    """The way to store vectors that goes by this name."""
    if kind == "int8":
        return Int8Codes()
    if kind == "binary":
        return BinaryCodes()
    return FloatCodes(kind)
