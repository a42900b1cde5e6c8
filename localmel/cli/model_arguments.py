"""The options by which a command names the model it asks, in place of the profile's: declared once for all of them.

In: nothing.  Out: annotations for Typer.  What was given is checked by `engine_options`."""

from __future__ import annotations

from typing import Annotated

import typer

EngineName = Annotated[
    str | None, typer.Option("--engine", help="vllm, transformers, server or scripted, for the profile's.")
]
Weights = Annotated[str | None, typer.Option("--engine-weights", help="Name or path of the model, for the profile's.")]
Quantization = Annotated[
    str | None, typer.Option("--engine-quantization", help="4bit, 8bit, awq, gptq, compressed-tensors or fp8.")
]
Device = Annotated[str | None, typer.Option("--engine-device", help="auto, cuda or cpu.")]
Url = Annotated[str | None, typer.Option("--engine-url", help="Where the server listens (engine server).")]
AtOnce = Annotated[int | None, typer.Option("--engine-at-once", help="How many requests are under way at a time.")]
