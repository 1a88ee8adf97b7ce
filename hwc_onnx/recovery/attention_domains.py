"""Channels that attention lets be scaled: queries against keys, values against the layer that reads the heads.

A score is sum_c q_c k_c, so q_c may be multiplied by s_c where k_c is divided by it. A head's output is sum_n a_n v_nc, so
channel c of the values keeps its factor up to the projection, whose column takes it up. Heads that share keys and values
(grouped queries) share their factors. Rows of the layers take up the factors; nothing is added to the network.

Source: Bondarenko et al., Understanding and Overcoming the Challenges of Efficient Transformer Quantization (EMNLP 2021) for
the uneven channels; the scaling of queries against keys and of values against the projection is in Shao et al., OmniQuant
(ICLR 2024), section 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.graph.channel_groups import output_channel_axis
from hwc_onnx.graph.layer_graph import Layer, LayerGraph, Node
from hwc_onnx.recovery.channel_walk import Constants, Index, Walk, Walker, along
from hwc_onnx.recovery.scale_domains import Domain, Place

PRODUCTS = frozenset(("MatMul",))


def attention_domains(graph: LayerGraph, constants: Constants) -> list[Domain]:
    """The domains of queries with keys and of values; none where a channel is also used in another way."""
    return list(_Finder(graph, constants).domains())


class _Finder:
    def __init__(self, graph: LayerGraph, constants: Constants) -> None:
        self._graph, self._constants = graph, constants
        self._walker = Walker(graph, constants)
        counts: dict[str, int] = {}
        for node in graph.nodes:
            for name in node.inputs:
                counts[name] = counts.get(name, 0) + 1
        self._shared = {name for name, count in counts.items() if count > 1} | set(graph.outputs)
        self._layers = {layer.key: layer for layer in graph.layers}

    def domains(self) -> Iterator[Domain]:
        """Queries with keys first, in the order of the network, then values."""
        walks = {layer.key: walk for layer in self._graph.layers if (walk := self._from(layer)) is not None}
        operands: dict[str, dict[str, str]] = {}
        for key, walk in walks.items():
            for node, name in walk.ends:
                if node.op_type in PRODUCTS and self._is_product(node):
                    operands.setdefault(node.key, {})[name] = key
        for key, met in operands.items():
            node = next(node for node in self._graph.nodes if node.key == key)
            found = None
            if len(node.inputs) == 2 and set(node.inputs) == set(met):
                found = self._scores(node, [walks[met[name]] for name in node.inputs], [met[name] for name in node.inputs])
            elif len(met) == 1:
                (name, layer), = met.items()
                found = self._values(node, name, walks[layer], layer)
            if found is not None:
                yield found

    def _is_product(self, node: Node) -> bool:
        layer = self._layers.get(node.key)
        return layer is not None and layer.weight is None and len(layer.inputs) == 2

    def _from(self, layer: Layer) -> Walk | None:
        """The walk from a layer's output; None where its rows cannot take up factors or its channels lead nowhere else."""
        usable = layer.weight in self._constants and layer.weight not in self._shared and layer.state_weight is None
        if not usable or layer.weight is None or len(layer.weight_shape) < 2 or layer.loop_dims.G > 1:
            return None
        shape = self._graph.tensors[layer.key].shape
        axis = output_channel_axis(layer, len(shape))
        channels = np.arange(layer.weight_shape[layer.output_axis])
        if len(channels) != shape[axis]:
            return None
        form = [1] * len(shape)
        form[axis] = -1
        return self._walker.walk(layer.key, np.broadcast_to(channels.reshape(form), shape))

    def _scores(self, node: Node, walks: list[Walk], keys: list[str]) -> Domain | None:
        """Queries and keys of one product: pairs that meet in its sum are joined, each gets one factor."""
        left, right = (walk.tensors[name] for walk, name in zip(walks, node.inputs, strict=True))
        if left.ndim < 2 or right.ndim < 2:
            return None
        first, second = along_rows(left, -2), along_rows(right, -1)
        if first is None or second is None:
            return None
        batch = np.broadcast_shapes(first.shape, second.shape)
        pairs = np.stack([np.broadcast_to(side, batch).reshape(-1) for side in (first, second)], axis=1)
        free = [self._free(walk, {node.key}) for walk in walks]
        numbers = _joined(pairs, [len(side) for side in free])
        if keys[0] == keys[1] and np.intersect1d(pairs[:, 0], pairs[:, 1]).size:
            return None
        for side, allowed in enumerate(free):
            met = np.unique(pairs[:, side])
            numbers[side][np.isin(numbers[side], numbers[side][met[~allowed[met]]])] = -1
        stays = np.intersect1d(numbers[0][numbers[0] >= 0], numbers[1][numbers[1] >= 0])
        places = [np.where(np.isin(side, stays), np.searchsorted(stays, side), -1) for side in numbers]
        if not len(stays):
            return None
        tensors: list[Place] = []
        constants: list[Place] = []
        for walk, key, index, power in zip(walks, keys, places, (1, -1), strict=True):
            stored = self._stored(walk, index, power)
            taken = self._constants_of(walk, self._layers[key], index, power)
            if not stored or taken is None:
                return None
            tensors += stored[:1]
            constants += taken
        return Domain(f"{node.key} scores", len(stays), tuple(tensors), tuple(constants), (node.key,), None)

    def _values(self, node: Node, name: str, walk: Walk, key: str) -> Domain | None:
        """Values of one product, up to the layers that read its heads."""
        values = walk.tensors[name]
        shape = self._graph.tensors[node.outputs[0]].shape
        side = -2 if name == node.inputs[1] else -1
        rows = along_rows(values, side) if values.ndim >= 2 else None
        if rows is None or len(shape) != values.ndim:
            return None
        behind = self._walker.walk(node.outputs[0], np.broadcast_to(np.expand_dims(rows, side), shape))
        readers = [(end, self._layers.get(end.key), tensor) for end, tensor in behind.ends]
        if behind.added or not readers or set(behind.tensors) & set(self._graph.outputs):
            return None
        channels = self._layers[key].weight_shape[self._layers[key].output_axis]
        index = np.arange(channels)
        index[~self._free(walk, {node.key})] = -1
        index[~np.isin(index, rows)] = -1
        constants = self._constants_of(walk, self._layers[key], index, 1)
        if constants is None or not (index >= 0).any():
            return None
        tensors = self._stored(walk, index, 1)[:1]
        for end, layer, tensor in readers:
            if layer is None or layer.weight is None or layer.weight in self._shared or layer.loop_dims.G > 1:
                return None
            if tensor not in layer.inputs:
                return None
            read = along(behind.tensors[tensor], _input_axis(end, layer, behind.tensors[tensor].ndim))
            if read is None or len(read) != layer.weight_shape[layer.input_axis] or layer.state_weight is not None:
                return None
            constants.append(Place(layer.weight, layer.input_axis, index[read], -1))
            tensors.append(Place(tensor, _input_axis(end, layer, behind.tensors[tensor].ndim), index[read]))
        return Domain(f"{node.key} values", channels, tuple(tensors), tuple(constants), tuple(end.key for end, _, _ in readers), None)

    def _free(self, walk: Walk, ends: Set[str]) -> NDArray[np.bool_]:
        """The channels of a walk that end nowhere but at the nodes `ends`."""
        count = max((int(values.max(initial=-1)) for values in walk.tensors.values()), default=-1) + 1
        free = np.ones(count, dtype=np.bool_)
        elsewhere = [name for node, name in walk.ends if node.key not in ends]
        elsewhere += [name for name in walk.tensors if name in self._graph.outputs]
        for name in elsewhere:
            free[np.unique(walk.tensors[name])] = False
        return free

    def _stored(self, walk: Walk, index: Index, power: int) -> list[Place]:
        """The tensors of a walk that have a quantizer, whose channels lie along one axis."""
        found = []
        for name, values in walk.tensors.items():
            if self._graph.activation_group_of(name) is None:
                continue
            for axis in range(values.ndim):
                read = along(values, axis)
                if read is not None and len(np.unique(read)) == len(read) > 1:
                    found.append(Place(name, axis, index[read], power))
        return found

    def _constants_of(self, walk: Walk, layer: Layer, index: Index, power: int) -> list[Place] | None:
        """The constants that take up the factors of a layer's channels; None where one cannot."""
        assert layer.weight is not None
        found = [Place(layer.weight, layer.output_axis, index, power)]
        if layer.bias is not None and layer.op_type != "MatMul":
            bias = self._constants.get(layer.bias)
            if bias is None or bias.ndim == 0 or bias.shape[-1] != len(index):
                return None
            found.append(Place(layer.bias, bias.ndim - 1, index, power))
        for constant, tensor in walk.added:
            place = self._added(constant, walk.tensors[tensor], index, power)
            if place is None:
                return None
            found.append(place)
        usable = all(p.tensor in self._constants and p.tensor not in self._shared for p in found)
        return found if usable else None

    def _added(self, constant: str, values: Index, index: Index, power: int) -> Place | None:
        shape = self._constants[constant].shape if constant in self._constants else ()
        for axis in range(1, len(shape) + 1):
            read = along(values, -axis)
            if shape[-axis] > 1 and read is not None and len(read) == shape[-axis] and len(np.unique(read)) > 1:
                return Place(constant, len(shape) - axis, index[read], power)
        return None


def along_rows(values: Index, axis: int) -> Index | None:
    """`values` without `axis`, along which they must not change."""
    first = np.take(values, [0], axis)
    return np.squeeze(first, axis) if values.size and (values == first).all() else None


def _joined(pairs: Index, sizes: list[int]) -> list[Index]:
    """For both sides the number of the set that each channel belongs to when channels that meet are joined; -1: met none."""
    parent = np.arange(sum(sizes))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = int(parent[item])
        return item

    for left, right in np.unique(pairs, axis=0).tolist():
        parent[root(left)] = root(sizes[0] + right)
    roots = np.array([root(item) for item in range(len(parent))])
    sides = [np.full(size, -1, dtype=np.int64) for size in sizes]
    for side, offset in ((0, 0), (1, sizes[0])):
        met = np.unique(pairs[:, side])
        sides[side][met] = roots[offset + met]
    return sides


def _input_axis(node: Node, layer: Layer, rank: int) -> int:
    """The axis of a layer's input that its input channels lie on."""
    if layer.op_type in ("Conv", "ConvTranspose"):
        return 1
    if layer.op_type == "Gemm":
        return 0 if node.attributes.get("transA") else 1
    return rank - 2 if layer.output_axis == len(layer.weight_shape) - 2 else rank - 1

