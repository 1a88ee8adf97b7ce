"""Tensors whose channels may be moved up or down: a constant is subtracted where they are made and made up for where they are read.

A channel far from zero widens the range that its whole tensor is rounded in. Where every reader is a layer without padding,
W (x - z) + (b + W z) = W x + b, so z can go from the bias of what makes the tensor into the biases of its readers. Behind a
Relu only what all values of the channel have above zero can go, as far as calibration has seen.

Source: Nagel et al. (ICCV 2019), section 4.1.3, for biases absorbed behind a Relu; Wei et al., Outlier Suppression+ (EMNLP
2023), section 3.1, for channels brought to the middle of their range behind a normalization.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.graph.layer_graph import Layer, LayerGraph, Node
from hwc_onnx.recovery.statistics import F64

NORMALIZATIONS = frozenset(("LayerNormalization", "BatchNormalization", "InstanceNormalization"))
UNPADDED = ("NOTSET", "VALID", b"NOTSET", b"VALID")
WORTHWHILE = 0.95
"""Channels are moved where that leaves no more than this share of the tensor's range."""


@dataclass(frozen=True)
class Movable:
    """A tensor whose channels along `axis` are made with `bias` [channels], behind a Relu or not, and the layers that read it."""

    tensor: str
    axis: int
    bias: str
    above_zero: bool
    readers: tuple[str, ...]


def movable_tensors(graph: LayerGraph, constants: Mapping[str, NDArray[np.generic]]) -> list[Movable]:
    """All such tensors of a model that have a quantizer, in the order of the network."""
    return _Finder(graph, constants).found()


def shift(found: Movable, low: F64, high: F64) -> F64 | None:
    """What each channel is moved by [channels]; None where the range of the tensor hardly shrinks.

    `low` and `high` [channels] are the smallest and the largest value of each channel. The range of a quantizer has zero in it.
    """
    moved = np.maximum(low, 0.0) if found.above_zero else (low + high) / 2

    def width(by: F64 | float) -> float:
        return max(float((high - by).max()), 0.0) - min(float((low - by).min()), 0.0)

    return moved if width(moved) < WORTHWHILE * width(0.0) else None


def made_up(layer: Layer, weight: NDArray[np.generic], moved: F64) -> F64:
    """W z [outputs]: what a reader's bias gains when its input channels lose `moved`."""
    values = np.asarray(weight, dtype=np.float64)
    taps = tuple(axis for axis in range(values.ndim) if axis not in (layer.output_axis, layer.input_axis))
    sums = values.sum(axis=taps)  # the two axes left keep their order
    matrix = sums if layer.output_axis < layer.input_axis else sums.T
    groups = max(layer.loop_dims.G, 1) if layer.op_type == "Conv" else 1
    per = len(matrix) // groups
    return np.concatenate([matrix[g * per : (g + 1) * per] @ part for g, part in enumerate(np.split(moved, groups))])


class _Finder:
    def __init__(self, graph: LayerGraph, constants: Mapping[str, NDArray[np.generic]]) -> None:
        self._graph, self._constants = graph, constants
        self._layers = {layer.key: layer for layer in graph.layers}
        self._made_by = {name: node for node in graph.nodes for name in node.outputs}
        self._uses: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in node.inputs:
                self._uses.setdefault(name, []).append(node)

    def found(self) -> list[Movable]:
        """See `movable_tensors`."""
        found = []
        for node in self._graph.nodes:
            tensor, made = node.outputs[0], self._bias_of(node)
            if made is None or self._graph.activation_group_of(tensor) is None or tensor in self._graph.outputs:
                continue
            bias, axis, above_zero = made
            readers = self._uses.get(tensor, [])
            biases = [bias, *(layer.bias for reader in readers if (layer := self._layers.get(reader.key)) and layer.bias)]
            own = len(set(biases)) == 1 + len(readers) and all(self._own(name) for name in biases)
            if readers and own and all(self._takes(reader, tensor, axis) for reader in readers):
                found.append(Movable(tensor, axis, bias, above_zero, tuple(reader.key for reader in readers)))
        return found

    def _own(self, bias: str) -> bool:
        """Whether a bias is a vector that nothing else reads."""
        values = self._constants.get(bias)
        return values is not None and values.ndim == 1 and values.size > 1 and len(self._uses[bias]) == 1

    def _bias_of(self, node: Node) -> tuple[str, int, bool] | None:
        """(bias, channel axis of the node's output, whether a Relu stands between)."""
        info = self._graph.tensors.get(node.outputs[0])
        if info is None:
            return None
        rank = len(info.shape)
        if node.op_type == "Relu":
            below = self._made_by.get(node.inputs[0])
            seen_elsewhere = len(self._uses.get(node.inputs[0], [])) != 1 or node.inputs[0] in self._graph.outputs
            made = None if below is None or below.op_type == "Relu" or seen_elsewhere else self._bias_of(below)
            return None if made is None else (made[0], made[1], True)
        if node.op_type in NORMALIZATIONS and len(node.inputs) > 2 and node.inputs[2]:
            last = node.op_type == "LayerNormalization"
            whole = not last or int(node.attributes.get("axis", -1)) in (-1, rank - 1)
            return (node.inputs[2], rank - 1 if last else 1, False) if whole and rank > 1 else None
        layer = self._layers.get(node.key)
        if layer is not None and layer.weight is not None and layer.bias is not None and layer.state_weight is None:
            convolves = layer.op_type in ("Conv", "ConvTranspose")
            return (layer.bias, 1, False) if convolves or (layer.op_type == "Gemm" and _plain(node)) else None
        if node.op_type == "Add":
            for name, other in (node.inputs, node.inputs[::-1]):
                layer = self._layers.get(name)
                if layer is not None and layer.op_type == "MatMul" and layer.bias == other and len(self._uses[name]) == 1:
                    return (other, rank - 1, False) if layer.output_axis == len(layer.weight_shape) - 1 else None
        return None

    def _takes(self, node: Node, tensor: str, axis: int) -> bool:
        """Whether a reader's bias can make up for moved channels of its input."""
        layer = self._layers.get(node.key)
        if layer is None or layer.weight is None or layer.bias is None or layer.state_weight is not None:
            return False
        if tensor not in layer.inputs:
            return False
        if layer.op_type == "Conv":
            padded = any(node.attributes.get("pads", ())) or node.attributes.get("auto_pad", "NOTSET") not in UNPADDED
            return not padded and axis == 1
        if layer.op_type == "Gemm":
            return axis == 1 and not node.attributes.get("transA") and _plain(node)
        right = layer.output_axis == len(layer.weight_shape) - 1 and len(layer.weight_shape) == 2
        return layer.op_type == "MatMul" and right and axis == len(self._graph.tensors[tensor].shape) - 1


def _plain(gemm: Node) -> bool:
    return all(float(gemm.attributes.get(name, 1.0)) == 1.0 for name in ("alpha", "beta"))
