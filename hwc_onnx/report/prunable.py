"""How much of a model channels can be removed from: shares of weights, multiply-accumulates and energy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hwc_onnx.graph.layer_graph import FIXED, ChannelGroup, Layer, LayerGraph


@dataclass(frozen=True)
class Share:
    """Shares of the whole model, 0 to 1; `energy` is None where the model was not costed."""

    params: float
    macs: float
    energy: float | None


def prunable_share(
    graph: LayerGraph, groups: Iterable[ChannelGroup], energy_of: Mapping[str, float] | None = None
) -> Share:
    """The share that lies on channels of `groups` (locked ones do not count).

    A weight counts when its output or its input channel can go; of a layer's multiply-accumulates and of its energy the
    same share counts. `energy_of` is energy by node key, layers or not.
    """
    free = {
        (member.tensor, member.axis): sum(_free(group, channel) for channel in member.index) / max(len(member.index), 1)
        for group in groups
        if group.locked_because is None
        for member in group.members
    }
    layers = [layer for layer in graph.layers if layer.weight is not None]
    share = {layer.key: _share(layer, free) for layer in layers}
    params = {layer.key: float(layer.params) for layer in layers}
    macs = {layer.key: float(layer.macs) for layer in graph.layers}
    return Share(
        _weighted(share, params),
        _weighted(share, macs),
        None if energy_of is None else _weighted(share, energy_of),
    )


def _free(group: ChannelGroup, channel: int) -> bool:
    return channel >= 0 and (not group.parts or group.parts[channel] != FIXED)


def _share(layer: Layer, free: Mapping[tuple[str, int], float]) -> float:
    stays = 1.0
    for axis in range(len(layer.weight_shape)):
        stays *= 1.0 - free.get((layer.weight or "", axis), 0.0)
    return 1.0 - stays


def _weighted(share: Mapping[str, float], amount: Mapping[str, float]) -> float:
    total = sum(amount.values())
    return sum(share.get(key, 0.0) * value for key, value in amount.items()) / total if total else 0.0
