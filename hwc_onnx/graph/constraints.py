"""What a plan may not do to some layers: fewest channels, bounds of the ratio, heads that stay.

Constraints name layers by pattern, like --include, and are kept in the plan. They are carried out as facts of the layer graph:
`constrained` gives each layer its bounds and each channel group its floor or its lock, and everything that reads the
graph (search, uniform settings, checks) follows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hwc_onnx.errors import UsageError
from hwc_onnx.graph.layer_graph import MOST_REMOVED, ChannelGroup, Layer, LayerGraph
from hwc_onnx.graph.selection import matching

Ratio = Annotated[float, Field(ge=0.0, le=MOST_REMOVED)]


class Constraints(BaseModel):
    """Limits on what may be removed; of several that name one layer, all hold.

    `min_channels` is the fewest output channels that layers keep, by pattern (a layer that has fewer keeps them all).
    `ratios` are the lowest and highest ratio that layers may get, by pattern. `keep_heads` leaves every attention head.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_channels: dict[str, Annotated[int, Field(ge=1)]] = {}
    ratios: dict[str, tuple[Ratio, Ratio]] = {}
    keep_heads: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> Constraints:
        for pattern, (low, high) in self.ratios.items():
            if low > high:
                raise ValueError(f"ratios of '{pattern}': {low:g} to {high:g}; the lower one comes first")
        return self

    def __bool__(self) -> bool:
        return self != NO_CONSTRAINTS


NO_CONSTRAINTS = Constraints()


def by_pattern(value: Any) -> dict[str, Any]:
    """A value for every layer, or values by pattern, as values by pattern."""
    if value is None:
        return {}
    return dict(value) if isinstance(value, Mapping) else {"*": value}


def constraints_of(min_channels: Any = None, ratio_bounds: Any = None, keep_heads: bool = False) -> Constraints:
    """Constraints from values for every layer, or by pattern.

    Raises:
        UsageError: a count or a bound is out of range.
    """
    try:
        return Constraints(
            min_channels=by_pattern(min_channels), ratios=by_pattern(ratio_bounds), keep_heads=keep_heads
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"constraints: {where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}; min_channels are counts from 1, ratio_bounds a lowest "
            f"and a highest ratio within 0 and {MOST_REMOVED}, for every layer or by pattern"
        ) from error


def constrained(graph: LayerGraph, constraints: Constraints) -> LayerGraph:
    """The graph whose layers and channel groups say what the constraints leave.

    Raises:
        UsageError: a pattern matches no layer that it could concern, or two bounds of a layer exclude one another.
    """
    if not constraints:
        return graph
    bounds = _bounds(graph, constraints.ratios)
    fewest = _fewest(graph, constraints.min_channels)
    kept = _head_groups(graph) if constraints.keep_heads else set()
    layers = tuple(replace(layer, ratio_bounds=bounds.get(layer.key, layer.ratio_bounds)) for layer in graph.layers)
    by_key = {layer.key: layer for layer in layers}
    groups = tuple(_group(graph, group, by_key, fewest, kept) for group in graph.channel_groups)
    return replace(graph, layers=layers, channel_groups=groups)


def _weighted(graph: LayerGraph, pattern: str, what: str) -> list[Layer]:
    found = [layer for layer in matching(graph, pattern) if layer.weight is not None]
    if not found:
        raise UsageError(f"{what} '{pattern}': matches products of two activations only, which have nothing to prune; leave it out")
    return found


def _bounds(graph: LayerGraph, ratios: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    said: dict[str, str] = {}
    for pattern, (low, high) in ratios.items():
        for layer in _weighted(graph, pattern, "ratio bounds of"):
            before = found.get(layer.key, layer.ratio_bounds)
            both = max(low, before[0]), min(high, before[1])
            if both[0] > both[1]:
                raise UsageError(
                    f"ratio bounds: layer '{layer.key}' matches '{pattern}' ({low:g} to {high:g}) and '{said[layer.key]}' "
                    f"({before[0]:g} to {before[1]:g}), and no ratio is within both; change one of them"
                )
            found[layer.key], said[layer.key] = both, pattern
    return found


def _fewest(graph: LayerGraph, min_channels: Mapping[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for pattern, count in min_channels.items():
        for layer in _weighted(graph, pattern, "fewest channels of"):
            found[layer.key] = max(found.get(layer.key, 1), count)
    return found


def _group(
    graph: LayerGraph,
    group: ChannelGroup,
    layers: Mapping[str, Layer],
    fewest: Mapping[str, int],
    kept: set[str],
) -> ChannelGroup:
    if group.locked_because is None and group.root in kept:
        return replace(group, locked_because=f"channels of `{group.root}` are attention heads, which are to be kept")
    floor = group.floor
    for key in group.producers:
        high = layers[key].ratio_bounds[1]
        if high < MOST_REMOVED:
            floor = max(floor, math.ceil(group.channels * (1.0 - high) - 1e-9))
        if key in fewest:
            floor = max(floor, _channels_for(graph, group, layers[key], fewest[key]))
    return replace(group, floor=min(floor, group.channels))


def _channels_for(graph: LayerGraph, group: ChannelGroup, layer: Layer, outputs: int) -> int:
    """The fewest group channels that leave the layer this many output channels, whichever stay.

    A head stands for many outputs at once; outputs that belong to no group stay anyway.
    """
    for member in group.members:
        if (member.tensor, member.axis) == (layer.weight, layer.output_axis):
            index = np.asarray(member.index)
            outside = int((index < 0).sum())
            sizes = np.sort(np.bincount(index[index >= 0], minlength=group.channels))
            left = np.searchsorted(np.cumsum(sizes), outputs - outside)
            return min(int(left) + 1, group.channels) if outputs > outside else 0
    return min(outputs, group.channels)


def _head_groups(graph: LayerGraph) -> set[str]:
    """Roots of the groups whose channels are heads: those that number the products of two activations made side by side."""
    side_by_side = {
        (tensor, axis)
        for layer in graph.layers
        if layer.weight is None
        for tensor in (*layer.inputs, *layer.outputs)
        for axis in range(len(graph.tensors[tensor].shape) - 2)
    }
    return {
        group.root
        for group in graph.channel_groups
        if any((member.tensor, member.axis) in side_by_side for member in group.members)
    }

