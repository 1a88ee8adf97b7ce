"""Which channels of a group stay, and what that means for each weight that touches the group.

A channel group is scored once, over all its producers (or consumers): scores are divided by their mean per layer, then
added, so that no layer outvotes another by the size of its weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.graph.layer_graph import FIXED, ChannelGroup, Layer, LayerGraph
from hwc_onnx.plan import kept_of
from hwc_onnx.pruning.base import CoarseAlgorithm, Consumer
from hwc_onnx.recovery.folding import joined, moved, representatives, shared_by_equals, stand_ins
from hwc_onnx.recovery.layout import RowLayout
from hwc_onnx.recovery.setting import Taken
from hwc_onnx.recovery.statistics import F64, WIDEST, LayerStatistics, Moments

Index = NDArray[np.int64]

MOST = 0.75
"""Share of the channels that are put in order once a second ratio is asked for."""


@dataclass(frozen=True)
class WeightView:
    """One layer's rows, layout and statistics, as the channel choice reads them; `all_rows` has the rows by layer key.

    `all_biases` has the biases [outputs] of layers that have one. `measured` is None for a layer that was not calibrated: its inputs count as white. `taken` is what equalization
    multiplied the rows with: scores are those of the weights as they were given.
    """

    layer: Layer
    layout: RowLayout
    all_rows: Mapping[str, F64]
    measured: LayerStatistics | None
    taken: Taken | None = None
    all_biases: Mapping[str, F64] = field(default_factory=dict)

    @property
    def rows(self) -> F64:
        """The rows [groups, rows, d]."""
        return self.all_rows[self.layer.key]

    @property
    def given_rows(self) -> F64:
        """The rows as they were before equalization."""
        return self.rows if self.taken is None else self.rows / (self.taken.rows[:, :, None] * self.taken.columns[:, None, :])

    @property
    def given_bias(self) -> F64:
        """The bias [outputs] before its rows were scaled (channels that were moved stay so); zeros where there is none."""
        bias = self.all_biases.get(self.layer.key, np.zeros(self.layout.outputs))
        return bias if self.taken is None else bias / self.taken.rows.reshape(-1)

    @cached_property
    def statistics(self) -> LayerStatistics:
        """Moments of the inputs, measured or white."""
        if self.measured is not None:
            return self.measured
        white = Moments.identity(self.layout.groups, self.layout.width)
        return LayerStatistics(white, white)


class ChannelMaps:
    """For every weight axis, the group channel of each position."""

    def __init__(self, graph: LayerGraph) -> None:
        axes: dict[tuple[str, int], list[tuple[str, Index]]] = {}
        for group in graph.channel_groups:
            for member in group.members:
                index = np.asarray(member.index, dtype=np.int64)
                axes.setdefault((member.tensor, member.axis), []).append((group.root, index))
        self._axes = axes

    def along(self, layer: Layer, axis: int, root: str) -> Index | None:
        """Group channel of each position of the layer's weight along `axis`, None where the group is not there."""
        for found, index in self._axes.get((layer.weight or "", axis), []):
            if found == root:
                return index
        return None

    def kept(self, layer: Layer, axis: int, keep: Mapping[str, Index]) -> Index | None:
        """Positions of the layer's weight along `axis` that stay under `keep`, None for all."""
        return self.kept_at(layer.weight or "", axis, keep)

    def kept_at(self, tensor: str, axis: int, keep: Mapping[str, Index]) -> Index | None:
        """Positions of a tensor along `axis` that stay under `keep`, None for all."""
        stays: NDArray[np.bool_] | None = None
        for root, index in self._axes.get((tensor, axis), []):
            if root in keep:
                here = (index < 0) | np.isin(index, keep[root])
                stays = here if stays is None else stays & here
        if stays is None or stays.all():
            return None
        return np.flatnonzero(stays).astype(np.int64)

    def roots(self, layer: Layer, axis: int) -> list[str]:
        """Roots of the groups along `axis` of the layer's weight."""
        return [root for root, _ in self._axes.get((layer.weight or "", axis), [])]


class Orders:
    """Orders in which channels leave, by group and algorithm: as far as they were asked for."""

    def __init__(self, views: Mapping[str, WeightView], maps: ChannelMaps) -> None:
        self._views, self._maps = views, maps
        self._found: dict[tuple[str, str], Index] = {}

    def first(self, group: ChannelGroup, chosen: CoarseAlgorithm, count: int) -> Index | None:
        """The first `count` channels to leave; None where the algorithm scores them or nobody reads them."""
        if chosen.order is None:
            return None
        key = (group.root, chosen.name)
        if key not in self._found or len(self._found[key]) < count:
            consumers = _consumers(group, self._views, self._maps)
            if not consumers:
                return None
            # who asks for more will ask again, and the first of them leave in the same order
            most = count if key not in self._found else max(count, int(MOST * group.channels))
            self._found[key] = chosen.order(consumers, group.channels, most)
        return self._found[key][:count]


def choose_channels(
    group: ChannelGroup,
    views: Mapping[str, WeightView],
    maps: ChannelMaps,
    chosen: CoarseAlgorithm,
    ratio: float,
    lanes: int,
    orders: Orders | None = None,
) -> Index:
    """The sorted group channels that stay: kept_of(group, ratio, lanes) of them, of each part its share."""
    kept = kept_of(group, ratio, lanes)
    if kept >= group.channels:
        return np.arange(group.channels, dtype=np.int64)
    seed = hashlib.sha256(f"{group.root}|{chosen.name}|{ratio:.6f}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(seed[:8], "little"))
    if chosen.represent is not None:
        return representatives(group, features_of(group, views, maps), chosen.represent, kept, rng)
    # of parts each keeps its share, so any channel may be asked when it would leave
    leaving = group.channels if group.parts else group.channels - kept
    order = (orders or Orders(views, maps)).first(group, chosen, leaving)
    if order is not None:
        rank = np.full(group.channels, float(group.channels))
        rank[order] = np.arange(len(order))
        return _best_of_parts(group, rank, kept)
    scores = np.zeros(group.channels)
    sides = ("consumers", "producers") if chosen.reads == "consumers" else ("producers", "consumers")
    for side in sides:
        for matrix, index in _matrices(group, views, maps, side):
            score = chosen.score(matrix, rng)
            inside = index >= 0
            share = np.zeros(group.channels)
            np.add.at(share, index[inside], score[inside])
            scores += share / max(float(share.mean()), 1e-30)
        if scores.any():
            break
    return _best_of_parts(group, scores, kept)


def features_of(group: ChannelGroup, views: Mapping[str, WeightView], maps: ChannelMaps) -> F64:
    """What belongs to each channel of a group [channels, m]: the rows that make it with their biases, the columns that read it."""
    made = joined(_matrices(group, views, maps, "producers", biases=True), group.channels)
    read = joined(_matrices(group, views, maps, "consumers"), group.channels)
    return np.concatenate([made, shared_by_equals(made, read)], axis=1)


class Folds:
    """Where readers of folded channels read instead; what belongs to the channels of a group is put together once.

    Args:
        groups: channel groups by root.
        views: of all layers with weights.
        maps: of the graph.
    """

    def __init__(
        self, groups: Mapping[str, ChannelGroup], views: Mapping[str, WeightView], maps: ChannelMaps
    ) -> None:
        self._groups, self._views, self._maps = groups, views, maps
        self._features: dict[str, F64] = {}

    def features(self, root: str) -> F64:
        """`features_of` the group."""
        if root not in self._features:
            self._features[root] = features_of(self._groups[root], self._views, self._maps)
        return self._features[root]

    def into(self, key: str, input_keep: Index) -> Index:
        """For each column [d] of the layer, the one that reads the channel which stands for its own, of those kept."""
        layer, layout = self._views[key].layer, self._views[key].layout
        target = np.arange(layout.channels, dtype=np.int64)
        for root in self._maps.roots(layer, layer.input_axis):
            index = self._maps.along(layer, layer.input_axis, root)
            if index is None or len(index) != layout.channels:
                continue
            inside = index[input_keep]
            stands = stand_ins(self._groups[root], self.features(root), np.unique(inside[inside >= 0]))
            target = moved(index, stands, target)
        into = np.arange(layout.width, dtype=np.int64)
        into[layout.columns(np.arange(layout.channels))] = layout.columns(target)
        return into


def _best_of_parts(group: ChannelGroup, scores: F64, kept: int) -> Index:
    """The channels with the highest scores, sorted; of each part as many as it keeps."""
    part_of = np.asarray(group.parts or (0,) * group.channels)
    order = np.argsort(-scores, kind="stable")
    stays = [order[part_of[order] == part][:count] for part, count in enumerate(group.kept_of_parts(kept))]
    stays.append(np.flatnonzero(part_of == FIXED))
    return np.sort(np.concatenate(stays)).astype(np.int64)


def _matrices(
    group: ChannelGroup, views: Mapping[str, WeightView], maps: ChannelMaps, side: str, biases: bool = False
) -> list[tuple[F64, Index]]:
    """(matrix [positions, m], group channel of each position) for every producer or consumer; `biases` are one column more."""
    found = []
    for key in group.producers if side == "producers" else group.consumers:
        if key not in views:
            continue
        view = views[key]
        layout = view.layout
        axis = view.layer.output_axis if side == "producers" or layout.groups > 1 else view.layer.input_axis
        index = maps.along(view.layer, axis, group.root)
        if index is None:
            continue
        if axis == view.layer.output_axis:
            rows = view.given_rows.reshape(layout.outputs, -1)
            found.append((np.column_stack([rows, view.given_bias]) if biases else rows, index))
        else:
            by_channel = np.moveaxis(view.given_rows.reshape(layout.rows, layout.stack, layout.channels, layout.taps), 2, 0)
            found.append((np.ascontiguousarray(by_channel).reshape(layout.channels, -1), index))
    return [(matrix, index) for matrix, index in found if len(matrix) == len(index)]


def _consumers(group: ChannelGroup, views: Mapping[str, WeightView], maps: ChannelMaps) -> list[Consumer]:
    """Readers that mix channels (a depthwise reader leaves with its channel), but for those too wide to have been seen."""
    found = []
    for key in group.consumers:
        if key not in views or views[key].layout.groups > 1 or views[key].layout.stack > 1:
            continue
        view = views[key]
        if view.measured is None and view.layout.width > WIDEST:
            continue
        index = maps.along(view.layer, view.layer.input_axis, group.root)
        if index is not None and len(index) == view.layout.channels:
            moment = view.statistics.fit.second_moment(True)[0]
            if view.taken is not None:
                moment = moment * view.taken.columns[0, :, None] * view.taken.columns[0]
            found.append(Consumer(view.given_rows[0], moment, np.repeat(index, view.layout.taps)))
    return found
