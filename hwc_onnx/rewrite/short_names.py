"""Short names for what quantization adds, in the file alone.

A quantizer is up to three nodes, and each repeats the name of its tensor several times: in a network of a few hundred
kilobytes, names would take more room than scales. Inputs, outputs, weights and what layers compute keep their names, only what
belongs to quantizers (the model's own, where it had some, too) is renamed; names of nodes are optional in ONNX, and those of
quantizers are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import onnx

from hwc_onnx.graph.model_view import captured, subgraphs

LETTERS = {"QuantizeLinear": "q", "Clip": "c", "DequantizeLinear": "d"}


def shorten(model: onnx.ModelProto) -> None:
    """Rename, in place, the integers, restored tensors, scales, zero points and limits of the main graph's quantizers."""
    graph = model.graph
    made = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    fixed = {value.name for value in (*graph.input, *graph.output)}
    fixed |= {name for node in graph.node for inner in subgraphs(node) for name in captured(inner)}
    names = _Names({*made, *constants, *fixed, *_inside(graph)})
    renamed: dict[str, str] = {}
    for node in graph.node:
        if not _added(node, made):
            continue
        node.name = ""
        kinds = {node.output[0]: LETTERS[node.op_type]}
        letters = "ll" if node.op_type == "Clip" else "sz"
        kinds |= {name: letter for name, letter in zip(node.input[1:], letters, strict=False) if name in constants}
        for name, letter in kinds.items():
            weight = node.op_type == "DequantizeLinear" and name == node.output[0] and not _of_an_activation(node, made)
            if name and name not in renamed and name not in fixed and not weight:
                short = names.next(letter)
                if len(short) < len(name):
                    renamed[name] = short
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for entry in (*graph.initializer, *graph.value_info):
        entry.name = renamed.get(entry.name, entry.name)
    for note in graph.quantization_annotation:
        note.tensor_name = renamed.get(note.tensor_name, note.tensor_name)
        for pair in note.quant_parameter_tensor_names:
            pair.value = renamed.get(pair.value, pair.value)


def _added(node: onnx.NodeProto, made: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether a node belongs to a quantizer: a Clip does if integers go in."""
    if node.op_type == "Clip":
        source = made.get(node.input[0])
        return source is not None and source.op_type == "QuantizeLinear"
    return node.op_type in LETTERS and node.domain in ("", "ai.onnx")


def _of_an_activation(node: onnx.NodeProto, made: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether a DequantizeLinear restores what the graph computes; stored weights may lie outside the model."""
    source = made.get(node.input[0])
    source = made.get(source.input[0]) if source is not None and source.op_type == "Clip" else source
    return source is not None and source.op_type == "QuantizeLinear"


def _inside(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of all subgraphs, which must not be those of the graph around them."""
    for node in graph.node:
        for inner in subgraphs(node):
            yield from (value.name for value in (*inner.input, *inner.output, *inner.initializer))
            yield from (name for below in inner.node for name in below.output)
            yield from _inside(inner)


class _Names:
    """Unused names of a letter and a number."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken
        self._count: Counter[str] = Counter()

    def next(self, letter: str) -> str:
        """The first unused one; it is used from now on."""
        return next(name for name in self._numbered(letter) if name not in self._taken)

    def _numbered(self, letter: str) -> Iterator[str]:
        while True:
            self._count[letter] += 1
            yield f"{letter}{self._count[letter]}"
