"""Channel removal: the channels that a plan drops leave every tensor that carries them.

before  y = W2 f(W1 x + b1)        after  y = W2[:, keep] f(W1[keep] x + b1[keep])

For f that works on each channel by itself the result equals that of the model in which the weights of the dropped
channels are zero (`mask_channels`). Which axis of which tensor carries a channel is stated by the members of the
channel groups. Source: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from hwc_onnx.errors import PlanError
from hwc_onnx.graph.layer_graph import ChannelGroup, LayerGraph, Member
from hwc_onnx.graph.model_view import attribute_value, reads

Keep = Mapping[str, NDArray[np.int64]]

_SIZE_OPERAND = {"Reshape": 1, "Resize": 3}
"""Operators that are told the size of their result, and the place of that operand."""


def remove_channels(proto: onnx.ModelProto, graph: LayerGraph, keep: Keep) -> onnx.ModelProto:
    """A new model in which each channel group named in `keep` (by root) has only these channels, sorted.

    `proto` must be the normalized model that `graph` was parsed from; it is left alone. Inputs, outputs and names stay.

    Raises:
        PlanError: an unknown or locked group, no channel left, or a channel that the group does not have.
    """
    stays = _stays(graph, keep)
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    if not stays:
        return model
    for tensor in model.graph.initializer:
        masks = stays.get(tensor.name)
        if masks:
            values = numpy_helper.to_array(tensor)
            for axis, mask in masks.items():
                values = np.compress(mask, values, axis=axis)
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
    del model.graph.value_info[:]
    _set_groups(model.graph, graph, stays)
    _set_sizes(model.graph, stays)
    return model


def mask_channels(proto: onnx.ModelProto, graph: LayerGraph, keep: Keep) -> onnx.ModelProto:
    """A new model of the same shapes in which the layers' weights of all channels not in `keep` are zero.

    Raises:
        PlanError: as for `remove_channels`.
    """
    stays = _stays(graph, keep)
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    weights = {layer.weight for layer in graph.layers}
    for tensor in model.graph.initializer:
        if tensor.name in weights and tensor.name in stays:
            values = numpy_helper.to_array(tensor).copy()
            for axis, mask in stays[tensor.name].items():
                np.moveaxis(values, axis, 0)[~mask] = 0.0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


def _stays(graph: LayerGraph, keep: Keep) -> dict[str, dict[int, NDArray[np.bool_]]]:
    """Tensor -> axis -> which positions stay, for the axes that lose some."""
    groups = {group.root: group for group in graph.channel_groups}
    found: dict[str, dict[int, NDArray[np.bool_]]] = {}
    for root, channels in keep.items():
        for member, mask in _member_masks(groups.get(root), root, channels):
            axes = found.setdefault(member.tensor, {})
            axes[member.axis] = axes[member.axis] & mask if member.axis in axes else mask
    return found


def _member_masks(
    group: ChannelGroup | None, root: str, channels: NDArray[np.int64]
) -> Iterator[tuple[Member, NDArray[np.bool_]]]:
    if group is None:
        raise PlanError(f"plan: no channel group has the root '{root}'; `hwc-onnx inspect` lists the groups")
    if len(channels) == group.channels and np.array_equal(channels, np.arange(group.channels)):
        return
    if group.locked_because is not None:
        raise PlanError(f"plan: group '{root}' cannot lose channels: {group.locked_because}")
    if len(channels) == 0 or channels.min() < 0 or channels.max() >= group.channels or (np.diff(channels) <= 0).any():
        raise PlanError(
            f"plan: group '{root}' is to keep channels {channels.tolist()}; they must be sorted, different, between 0 and "
            f"{group.channels - 1}, and at least one"
        )
    # one entry more, so that index -1 (a position of another group) finds "stays"
    wanted = np.zeros(group.channels + 1, dtype=np.bool_)
    wanted[channels] = True
    wanted[-1] = True
    for member in group.members:
        yield member, wanted[np.asarray(member.index, dtype=np.int64)]


def _set_groups(
    target: onnx.GraphProto, graph: LayerGraph, stays: Mapping[str, Mapping[int, NDArray[np.bool_]]]
) -> None:
    """A grouped convolution has as many groups as are left (a depthwise one: as many as channels)."""
    grouped = {layer.key: layer for layer in graph.layers if layer.loop_dims.G > 1 and layer.op_type == "Conv"}
    for node in target.node:
        layer = grouped.get(node.output[0])
        if layer is None or 1 not in stays.get(layer.inputs[0], {}):
            continue
        left = stays[layer.inputs[0]][1]
        for attribute in node.attribute:
            if attribute.name == "group":
                attribute.i = int(left.sum()) * layer.loop_dims.G // len(left)


def _set_sizes(target: onnx.GraphProto, stays: Mapping[str, Mapping[int, NDArray[np.bool_]]]) -> None:
    """Reshape and Resize name the size of their result: entries that are neither 0 nor -1 follow the channels."""
    tensors = {tensor.name: tensor for tensor in target.initializer}
    readers: dict[str, int] = {}
    for node in target.node:
        for name in reads(node):
            readers[name] = readers.get(name, 0) + 1
    for node in target.node:
        place = _SIZE_OPERAND.get(node.op_type)
        axes = stays.get(node.output[0])
        if place is None or axes is None or len(node.input) <= place or node.input[place] not in tensors:
            continue
        name = node.input[place]
        sizes = numpy_helper.to_array(tensors[name]).copy()
        literal = any(entry.name == "allowzero" and attribute_value(entry) for entry in node.attribute)
        named = next((attribute_value(entry) for entry in node.attribute if entry.name == "axes"), range(len(sizes)))
        for axis, mask in axes.items():
            for entry, of in enumerate(named):
                if of == axis and (sizes[entry] > 0 or (literal and sizes[entry] == 0)):
                    sizes[entry] = int(mask.sum())
        if readers[name] == 1:
            tensors[name].CopyFrom(numpy_helper.from_array(sizes, name))
        else:  # another node means other sizes by the same constant
            node.input[place] = f"{node.output[0]}_size"
            target.initializer.append(numpy_helper.from_array(sizes, node.input[place]))
