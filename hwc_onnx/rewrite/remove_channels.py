"""Channel removal: the channels that a plan drops leave every tensor that carries them.

before  y = W2 f(W1 x + b1)        after  y = W2[:, keep] f(W1[keep] x + b1[keep])

The result equals that of the model in which the dropped channels have no effect (`mask_channels`). Which axis of which
tensor carries a channel is stated by the members of the channel groups. Source: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.errors import PlanError
from hwc_onnx.graph import external
from hwc_onnx.graph.layer_graph import FIXED, ChannelGroup, LayerGraph, Member
from hwc_onnx.rewrite.operand_sizes import OperandSizes

Keep = Mapping[str, NDArray[np.int64]]


def remove_channels(proto: onnx.ModelProto, graph: LayerGraph, keep: Keep) -> onnx.ModelProto:
    """A new model in which each channel group named in `keep` (by root) has only these channels, sorted.

    `proto` must be the normalized model that `graph` was parsed from; it is left alone. Inputs, outputs and names stay.

    Raises:
        PlanError: an unknown or locked group, no channel of a part left, or a channel that the group does not have.
    """
    stays = stays_of(graph, keep)
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    if not stays:
        return model
    large = external.any_mapped(proto)
    for tensor in model.graph.initializer:
        masks = stays.get(tensor.name)
        if masks:
            values = external.tensor_values(tensor)
            for axis, mask in masks.items():
                values = np.compress(mask, values, axis=axis)
            tensor.CopyFrom(external.keep(tensor.name, values, large))
    del model.graph.value_info[:]
    OperandSizes(model.graph, graph, stays).follow()
    return model


def stays_of(graph: LayerGraph, keep: Keep) -> dict[str, dict[int, NDArray[np.bool_]]]:
    """Tensor -> axis -> which positions stay, for the axes that lose some.

    Raises:
        PlanError: as for `remove_channels`.
    """
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
        raise PlanError(f"plan: group '{root}' cannot lose channels: {group.locked_because}; leave its ratio at 0")
    if len(channels) == 0 or channels.min() < 0 or channels.max() >= group.channels or (np.diff(channels) <= 0).any():
        raise PlanError(
            f"plan: group '{root}' is to keep channels {channels.tolist()}; they must be sorted, different, between 0 and "
            f"{group.channels - 1}, and at least one"
        )
    left = [group.parts[channel] for channel in channels.tolist()] if group.parts else [0]
    if set(left) - {FIXED} != set(range(len(group.part_sizes))) or left.count(FIXED) != group.fixed:
        raise PlanError(
            f"plan: group '{root}' is to keep channels {channels.tolist()}; at least one of each of its "
            f"{len(group.part_sizes)} parts must stay, and all of the {group.fixed} that are fixed"
        )
    # one entry more, so that index -1 (a position of another group) finds "stays"
    wanted = np.zeros(group.channels + 1, dtype=np.bool_)
    wanted[channels] = True
    wanted[-1] = True
    for member in group.members:
        yield member, wanted[np.asarray(member.index, dtype=np.int64)]
