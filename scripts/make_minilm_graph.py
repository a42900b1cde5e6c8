"""Write weights/minilm-l6-v2/graph.onnx: the arithmetic of all-MiniLM-L6-v2 without its weights.

The weights are named, not stored: at run time they are handed over from the verified safetensors file.  Fused
operators of ONNX Runtime (com.microsoft) do attention, GELU and the skip connections.
In: nothing.  Out: about 9 kB, the same bytes every time.  Needs the package `onnx` (extra `dev`)."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS, HEADS, WIDTH, INNER, VOCABULARY, POSITIONS = 6, 12, 384, 1536, 30522, 512
EPSILON = 1e-12
FUSED = "com.microsoft"
TARGET = Path(__file__).parent.parent / "weights" / "minilm-l6-v2" / "graph.onnx"


class Graph:
    """Collects nodes and initialisers; every method returns the name of what it made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: list[onnx.TensorProto] = []

    def weight(self, name: str, *shape: int) -> str:
        """A float32 tensor given from outside at run time."""
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights"), ("offset", "0"), ("length", str(4 * math.prod(shape)))):
            tensor.external_data.add(key=key, value=value)
        self.initialisers.append(tensor)
        return name

    def constant(self, name: str, value: object) -> str:
        """A small tensor stored in the graph."""
        import numpy as np

        self.initialisers.append(numpy_helper.from_array(np.asarray(value, np.int64), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str, domain: str = "", **attributes: object) -> str:
        """One node with one output."""
        self.nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output


def embedding(graph: Graph) -> str:
    """token_ids (batch, length) -> states (batch, length, width); positions and token type are one table."""
    graph.weight("words", VOCABULARY, WIDTH)
    graph.weight("positions", POSITIONS, WIDTH)
    graph.add("Gather", ["words", "token_ids"], "word_states")
    graph.add("Shape", ["token_ids"], "shape")
    graph.add("Gather", ["shape", graph.constant("1", 1)], "length")
    graph.add("Unsqueeze", ["length", graph.constant("[0]", [0])], "length_list")
    graph.add("Slice", ["positions", "[0]", "length_list", "[0]"], "position_states")
    graph.add("Add", ["word_states", "position_states"], "summed")
    scale, shift = graph.weight("embedding.norm.scale", WIDTH), graph.weight("embedding.norm.shift", WIDTH)
    return graph.add("LayerNormalization", ["summed", scale, shift], "states.0", epsilon=EPSILON)


def layer(graph: Graph, number: int, states: str) -> str:
    """One transformer layer (post-norm, as BERT)."""

    def weight(name: str, *shape: int) -> str:
        return graph.weight(f"{number}.{name}", *shape)

    def skip(new: str, old: str, part: str, output: str) -> str:
        norm = [weight(f"{part}.norm.scale", WIDTH), weight(f"{part}.norm.shift", WIDTH), weight(f"{part}.bias", WIDTH)]
        return graph.add("SkipLayerNormalization", [new, old, *norm], output, FUSED, epsilon=EPSILON)

    inputs = [states, weight("qkv.weight", WIDTH, 3 * WIDTH), weight("qkv.bias", 3 * WIDTH), "lengths"]
    attended = graph.add("Attention", inputs, f"{number}.attended", FUSED, num_heads=HEADS)
    mixed = graph.add("MatMul", [attended, weight("out.weight", WIDTH, WIDTH)], f"{number}.mixed")
    middle = skip(mixed, states, "out", f"{number}.middle")
    raised = graph.add("MatMul", [middle, weight("up.weight", WIDTH, INNER)], f"{number}.raised")
    bent = graph.add("BiasGelu", [raised, weight("up.bias", INNER)], f"{number}.bent", FUSED)
    lowered = graph.add("MatMul", [bent, weight("down.weight", INNER, WIDTH)], f"{number}.lowered")
    return skip(lowered, middle, "down", f"states.{number + 1}")


def pooling(graph: Graph, states: str) -> str:
    """Mean over the real tokens, scaled to length 1 (the division by the count cancels)."""
    graph.add("Range", [graph.constant("0", 0), "length", "1"], "places")
    graph.add("Cast", ["lengths"], "long_lengths", to=TensorProto.INT64)
    graph.add("Unsqueeze", ["long_lengths", graph.constant("[1]", [1])], "length_column")
    graph.add("Less", ["places", "length_column"], "is_token")
    graph.add("Cast", ["is_token"], "token_weight", to=TensorProto.FLOAT)
    graph.add("Unsqueeze", ["token_weight", "[1]"], "token_row")
    graph.add("MatMul", ["token_row", states], "total")
    graph.add("Squeeze", ["total", "[1]"], "sum")
    return graph.add("LpNormalization", ["sum"], "vectors", axis=1, p=2)


def main() -> None:
    """Build and write the graph."""
    graph = Graph()
    states = embedding(graph)
    for number in range(LAYERS):
        states = layer(graph, number, states)
    vectors = pooling(graph, states)
    inputs = [
        helper.make_tensor_value_info("token_ids", TensorProto.INT64, ["batch", "length"]),
        helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]),
    ]
    outputs = [helper.make_tensor_value_info(vectors, TensorProto.FLOAT, ["batch", WIDTH])]
    body = helper.make_graph(graph.nodes, "all-MiniLM-L6-v2", inputs, outputs, graph.initialisers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(FUSED, 1)]
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(
        helper.make_model(body, opset_imports=opsets, ir_version=9).SerializeToString(deterministic=True)
    )


if __name__ == "__main__":
    main()
