"""The layer database: what each layer becomes under each setting, made on demand and stitched into any plan.

Entries are independent of one another (each is fitted to the original network's inputs), so a plan is put together
from them in milliseconds. They are cached in memory and on disk under a hash of all they depend on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.accuracy.collector import Calibration
from hwc_onnx.accuracy.runner import usable_threads
from hwc_onnx.graph import external
from hwc_onnx.graph.layer_graph import FLOAT_BITS, Layer, LayerGraph
from hwc_onnx.graph.zero_pattern import filled_share
from hwc_onnx.plan import Achieved, CompressionPlan, LayerConfig, channel_choice, check_plan, group_bits
from hwc_onnx.pruning.base import CoarseAlgorithm, FineAlgorithm
from hwc_onnx.pruning.table import algorithm
from hwc_onnx.quantization.quantizer import QuantizedWeight, QuantParams
from hwc_onnx.quantization.ranges import Method
from hwc_onnx.recovery.byte_cache import ByteCache
from hwc_onnx.recovery.channels import ChannelMaps, Folds, Orders, WeightView, choose_channels
from hwc_onnx.recovery.entries import ROWS_BYTES, Entries, Parameters
from hwc_onnx.recovery.layer import Recovery
from hwc_onnx.recovery.layer_weight import quantized, select_outputs, taken_by
from hwc_onnx.recovery.layout import layout_of
from hwc_onnx.recovery.on_demand import OnDemand
from hwc_onnx.recovery.plain import rounded
from hwc_onnx.recovery.setting import Setting
from hwc_onnx.recovery.statistics import F64
from hwc_onnx.recovery.stored_ranges import NOTHING_CUT, StoredRanges, still_scale
from hwc_onnx.rewrite.float_model import float_model

Index = NDArray[np.int64]
Codes = NDArray[np.int8] | NDArray[np.float32]
Request = tuple[str, LayerConfig, Index | None, str]
"""The arguments of `LayerDatabase.entry`."""


@dataclass(frozen=True)
class Entry:
    """One layer under one setting, for all its output channels.

    Errors are squared output errors relative to the output's variance (activation rounding included) on the images
    fitted to and on held-out ones; `density` is the share of non-zero codes.
    """

    weight: QuantizedWeight
    error_heldout: float
    error_fit: float
    density: float
    seconds: float


@dataclass(frozen=True)
class Stitched:
    """A plan put together: weights by layer key (removed channels gone), parameters by stored tensor, kept channels by
    group root (absent: all), and the plan with what it achieved.

    `constants` are other initializers with new values (removed channels gone): scales and biases of BatchNormalizations.
    """

    weights: Mapping[str, QuantizedWeight]
    activations: Mapping[str, QuantParams]
    keep: Mapping[str, Index]
    plan: CompressionPlan
    constants: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def float_model(self, proto: onnx.ModelProto, graph: LayerGraph) -> onnx.ModelProto:
        """The model that `weights` and `activations` are written into: `proto` without the channels that leave and with
        `constants`.
        """
        return float_model(proto, graph, self.keep, self.constants)


class LayerDatabase:
    """Entries of one model under one calibration.

    `symmetric` keeps activation zero points at 0, `power_of_two` all scales at powers of two. Without `corrects_bias` no bias
    takes up the mean of what a layer gets wrong.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        graph: LayerGraph,
        calibration: Calibration,
        *,
        cache_dir: Path | None = None,
        lanes: int = 1,
        recovery: Recovery = "full",
        portable: bool = False,
        ranges: Method = "mse",
        taken: Mapping[tuple[str, int], F64] | None = None,
        symmetric: bool = False,
        power_of_two: bool = False,
        corrects_bias: bool = True,
    ) -> None:
        self.symmetric, self.power_of_two, self.corrects_bias = symmetric, power_of_two, corrects_bias
        self.graph, self.calibration = graph, calibration
        self.lanes, self.recovery, self.portable, self.ranges = lanes, recovery, portable, ranges
        self.maps = ChannelMaps(graph)
        self.taken = taken or {}
        self.stored = StoredRanges(
            graph.activation_groups,
            calibration.histograms,
            calibration.channels,
            self.maps,
            ranges,
            symmetric,
            power_of_two,
            lambda group: still_scale(group, self.parameters),
        )
        self._keep: dict[tuple[str, str, float], Index] = {}
        self._roots = {group.root: group for group in graph.channel_groups}
        self._layers = {layer.key: layer for layer in graph.layers}
        self._tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._large = external.any_mapped(proto)
        self._rounded = ByteCache(ROWS_BYTES)
        keys = [layer.key for layer in graph.layers if layer.weight is not None]
        self.parameters: Mapping[str, Parameters] = OnDemand(keys, self._parameters, _owned_bytes, ROWS_BYTES)
        self._rows: Mapping[str, F64] = OnDemand(keys, self._to_rows, lambda rows: rows.nbytes, ROWS_BYTES)
        self._layouts = {key: layout_of(self._layers[key]) for key in keys}
        biases: Mapping[str, F64] = OnDemand(keys, self._bias, lambda bias: bias.nbytes, ROWS_BYTES)
        self.views = {
            key: WeightView(
                self._layers[key],
                self._layouts[key],
                self._rows,
                calibration.layers.get(key),
                taken_by(self._layers[key], self._layouts[key], self.taken),
                biases,
            )
            for key in keys
        }
        self._orders = Orders(self.views, self.maps)
        self.folds = Folds(self._roots, self.views, self.maps)
        self.entries = Entries(self.views, self.parameters, cache_dir, recovery, portable, power_of_two)

    def entry(
        self, key: str, config: LayerConfig, input_keep: Index | None = None, input_algorithm: str = "none"
    ) -> Entry:
        """The layer `key` under `config`, reading only the input channels `input_keep` (positions; None: all).

        A coarse-grained algorithm in `config` concerns the layer's outputs and leaves its entry alone.
        `input_algorithm` is the one that removed the inputs; it matters only where recovery is not "full".
        """
        started = time.perf_counter()
        layout = self.views[key].layout
        setting = self.setting(key, config, input_keep, input_algorithm)
        bits = config.weight_bits
        if bits >= FLOAT_BITS and setting.mask is None and setting.columns is None:
            return self._untouched(key)
        if self._unseen(key):
            return self._rounded_only(key, setting, started)
        rows = self.entries.rows(key, setting)
        if setting.columns is not None:
            layout = replace(layout, channels=len(setting.columns) // (layout.taps * layout.stack))
        weight = quantized(rows, layout, bits)
        seconds = time.perf_counter() - started
        return Entry(weight, rows.error_heldout, rows.error_fit, weight.weight_density, seconds)

    def prepare(
        self,
        requests: Iterable[Request],
        workers: int | None = None,
        on_done: Callable[[int, int], None] | None = None,
    ) -> int:
        """Make the entries of `requests` that are missing, each layer's together (several times faster than one by one).

        Args:
            requests: layer key, setting, kept input channels and the algorithm that chose them.
            workers: layers under way at once; None for one per usable core.
            on_done: hears (layers finished, layers in all).

        Returns:
            How many were made.
        """
        wanted: dict[str, list[Setting]] = {}
        for key, config, input_keep, input_algorithm in requests:
            setting = self.setting(key, config, input_keep, input_algorithm)
            changed = config.weight_bits < FLOAT_BITS or setting.mask is not None or setting.columns is not None
            if changed and not self._unseen(key):
                wanted.setdefault(key, []).append(setting)
        return self.entries.prepare(wanted, workers or usable_threads(), on_done)

    def damage(
        self, key: str, config: LayerConfig, input_keep: Index | None = None, input_algorithm: str = "none"
    ) -> float:
        """Relative output error on held-out images, activation rounding included."""
        return self.entry(key, config, input_keep, input_algorithm).error_heldout

    def keep(self, root: str, name: str, ratio: float) -> Index:
        """Sorted channels of group `root` that stay under the coarse-grained algorithm `name`."""
        memo = (root, name, round(ratio, 6))
        if memo not in self._keep:
            group, chosen = self._roots[root], algorithm(name)
            if group.locked_because is not None or not isinstance(chosen, CoarseAlgorithm):
                self._keep[memo] = np.arange(group.channels, dtype=np.int64)
            else:
                self._keep[memo] = choose_channels(
                    group, self.views, self.maps, chosen, ratio, self.lanes, self._orders
                )
        return self._keep[memo]

    def input_keep(self, key: str, keep: Mapping[str, Index]) -> Index | None:
        """Positions along the layer's input axis that stay when groups are cut to `keep` (None: all)."""
        layer = self._layers[key]
        if self.views[key].layout.groups > 1:
            return None
        return self.maps.kept(layer, layer.input_axis, keep)

    def activation_params(self, tensor: str, bits: int, keep: Mapping[str, Index] = NOTHING_CUT) -> QuantParams:
        """Quantizer of the stored tensor `tensor` (all tensors of its group share it), for the channels that are left when
        groups are cut to `keep`.
        """
        return self.stored.params(tensor, bits, keep)

    def activation_density(self, tensor: str, bits: int) -> float:
        """Share of the tensor's elements that are not zero once quantized at `bits`."""
        return self.stored.density(tensor, bits)

    def noise(self, tensor: str, bits: int) -> float:
        """Mean squared rounding error of the tensor at `bits` (0 where it is left alone)."""
        return 0.0 if bits >= FLOAT_BITS or tensor not in self.stored.group_of else self.stored.noise(tensor, bits)

    def stitch(self, plan: CompressionPlan) -> Stitched:
        """Put `plan` together.

        Raises:
            PlanError: the plan does not fit the graph: a layer that the graph lacks (the nearest name is given), a
                layer without a setting, or settings that contradict one another.
        """
        check_plan(self.graph, plan)
        keep, cut_by = self._channels(plan)
        weights: dict[str, QuantizedWeight] = {}
        achieved: dict[str, Achieved] = {}
        for key in self.parameters:
            config = plan.layers[key]
            layer = self._layers[key]
            inputs = self.input_keep(key, keep)
            source = next((cut_by[r] for r in self.maps.roots(layer, layer.input_axis) if r in cut_by), "none")
            entry = self.entry(key, config, inputs, source)
            weight = self._selected(layer, entry.weight, keep)
            achieved[key] = self._achieved(key, config, weight, keep)
            weights[key] = self._put_away(key, weight)
        activations: dict[str, QuantParams] = {}
        densities: dict[str, float] = {}
        widths = group_bits(self.graph, plan)
        for group, bits in zip(self.graph.activation_groups, widths, strict=True):
            if bits >= FLOAT_BITS:
                continue
            for tensor in group.tensors:
                activations[tensor] = self.activation_params(tensor, bits, keep)
                densities[tensor] = self.stored.density(tensor, bits, keep)
        facts = {"achieved": achieved, "activation_density": densities}
        return Stitched(weights, activations, keep, plan.model_copy(update=facts))

    def _selected(self, layer: Layer, weight: QuantizedWeight, keep: Mapping[str, Index]) -> QuantizedWeight:
        """The weight with the channels that stay. Inputs of a layer with groups, and matrices of a stack, are left out
        without any repair.
        """
        layout = self.views[layer.key].layout
        rows = self.maps.kept(layer, layer.output_axis, keep)
        bias = weight.bias
        if rows is not None:
            weight = select_outputs(weight, layer.output_axis, rows)
        repaired = layer.output_axis if layout.groups > 1 else layer.input_axis
        for axis in set(range(len(layout.shape))) - {layer.output_axis, repaired}:
            places = self.maps.kept(layer, axis, keep)
            if places is not None:
                codes = cast(Codes, np.take(weight.codes, places, axis=axis))
                weight = replace(weight, codes=codes, weight_density=float(np.count_nonzero(codes)) / codes.size)
        if layout.tied and bias is not None:
            left = self.maps.kept_at(layer.key, 1, keep)
            weight = replace(weight, bias=bias if left is None else bias[left])
        return weight

    def _channels(self, plan: CompressionPlan) -> tuple[dict[str, Index], dict[str, str]]:
        """Kept channels and the algorithm that cut them, by group root, for the groups that lose any."""
        keep: dict[str, Index] = {}
        cut_by: dict[str, str] = {}
        for root, group in self._roots.items():
            if channel_choice(plan, group) is None:
                continue
            config = plan.layers[group.producers[0]]
            stays = self.keep(root, config.algorithm, config.ratio)
            if len(stays) < group.channels:
                keep[root], cut_by[root] = stays, config.algorithm
        return keep, cut_by

    def _achieved(self, key: str, config: LayerConfig, weight: QuantizedWeight, keep: Mapping[str, Index]) -> Achieved:
        """What the setting came to for this layer."""
        chosen = algorithm(config.algorithm)
        density = float(np.count_nonzero(weight.codes)) / weight.codes.size
        if isinstance(chosen, FineAlgorithm):
            size = chosen.block
            blocks = None if size is None else filled_share(weight.codes, self._layers[key], size)
            return Achieved(ratio=1.0 - density, weight_density=density, block_density=blocks)
        group = self.graph.group_of(key)
        if not isinstance(chosen, CoarseAlgorithm) or group is None:
            return Achieved(weight_density=density)
        kept = len(keep[group.root]) if group.root in keep else group.channels
        return Achieved(ratio=1.0 - kept / group.channels, weight_density=density, kept_channels=kept)

    def setting(
        self, key: str, config: LayerConfig, input_keep: Index | None = None, input_algorithm: str = "none"
    ) -> Setting:
        """What `config` asks of the layer's repair."""
        chosen, source = algorithm(config.algorithm), algorithm(input_algorithm)
        mask = chosen if isinstance(chosen, FineAlgorithm) else None
        layout = self.views[key].layout
        if layout.groups > 1 or (input_keep is not None and len(input_keep) == layout.channels):
            input_keep = None
        columns = None if input_keep is None else layout.columns(input_keep)
        rescale, refit, into = 1.0, False, None
        repaired = self.recovery == "full" and not self._unseen(key)
        if isinstance(source, CoarseAlgorithm) and input_keep is not None and not repaired:
            rescale = layout.channels / len(input_keep) if source.rescale else 1.0
            refit = source.refits
            into = self.folds.into(key, input_keep) if source.represent is not None else None
        noise = self.noise(self._layers[key].inputs[0], config.activation_bits)
        ratio = config.ratio if mask is not None and mask.pattern is None else 0.0
        return Setting(config.weight_bits, mask, ratio, noise, columns, rescale, refit, into)

    def _untouched(self, key: str) -> Entry:
        """The layer as it is."""
        parameters = self.parameters[key]
        weight = np.asarray(parameters.weight, dtype=np.float32)
        bias = None if parameters.bias is None else np.asarray(parameters.bias, dtype=np.float32)
        density = float(np.count_nonzero(weight)) / max(weight.size, 1)
        return Entry(QuantizedWeight(weight, None, bias, density), 0.0, 0.0, density, 0.0)

    def _unseen(self, key: str) -> bool:
        """Whether nothing but masking and rounding can be done: there are no statistics to repair with."""
        return self.views[key].measured is None

    def _rounded_only(self, key: str, setting: Setting, started: float) -> Entry:
        """A layer without statistics: masked and rounded, some rows at a time."""
        columns, into = (b"" if index is None else index.tobytes() for index in (setting.columns, setting.into))
        mask = None if setting.mask is None else setting.mask.name
        name = (key, setting.bits, setting.noise, mask, setting.ratio, columns, setting.rescale, setting.refit, into)
        found: Entry | None = self._rounded.get(name)
        if found is None:
            parameters = self.parameters[key]
            bias = None if parameters.bias is None else np.asarray(parameters.bias, np.float32)
            layout = self._layouts[key]
            recovery = "ranges" if self.recovery == "full" else self.recovery
            rows = rounded(parameters.weight, layout, setting, recovery, self.portable, bias, self.power_of_two)
            if setting.columns is not None:
                layout = replace(layout, channels=len(setting.columns) // (layout.taps * layout.stack))
            weight = self._put_away(key, quantized(rows, layout, setting.bits))
            seconds = time.perf_counter() - started
            found = Entry(weight, rows.error_heldout, rows.error_fit, weight.weight_density, seconds)
            self._rounded.put(name, found, 0 if external.lies_in_file(weight.codes) else weight.codes.nbytes)
        return found

    def _put_away(self, key: str, weight: QuantizedWeight) -> QuantizedWeight:
        """The same weight; the codes of a large model lie in the temporary file, where they take no memory."""
        if not self._large or weight.codes.nbytes < external.SPILL_BYTES or external.lies_in_file(weight.codes):
            return weight
        return replace(weight, codes=cast(Codes, external.tensor_values(external.spill(key, weight.codes))))

    def _bias(self, key: str) -> F64:
        bias = self.parameters[key].bias
        return np.zeros(self._layouts[key].outputs) if bias is None else np.asarray(bias, np.float64)

    def _to_rows(self, key: str) -> F64:
        return self._layouts[key].to_rows(self.parameters[key].weight)

    def _parameters(self, key: str) -> Parameters:
        """The layer's constants out of the model."""
        layer, tensors = self._layers[key], self._tensors
        assert layer.weight is not None
        bias = None
        if layer.bias is not None and layer.bias in tensors:
            bias = external.tensor_values(tensors[layer.bias]).reshape(-1)
        takes_bias = bias is not None or layer.op_type in ("Conv", "ConvTranspose", "Gemm")
        weight = external.tensor_values(tensors[layer.weight])
        if layer.state_weight is not None:
            weight = np.concatenate([weight, external.tensor_values(tensors[layer.state_weight])], axis=layer.input_axis)
        return Parameters(weight, bias, takes_bias and self.corrects_bias)


def _owned_bytes(parameters: Parameters) -> int:
    """Bytes that a layer's constants take in memory; those in a file take none."""
    return 0 if external.lies_in_file(parameters.weight) else parameters.weight.nbytes
