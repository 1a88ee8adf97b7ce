"""The settings that `sensitivity` tries, and the units that each of them concerns.

A unit is the least that can be compressed by itself: a layer's weights, a stored tensor with the tensors that share its
quantizer, or the channels that leave together. Several layers may read one tensor or make one group of channels; they
share its number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from hwc_onnx.database import Request
from hwc_onnx.diagnosis.bench import IN_FLOAT
from hwc_onnx.errors import UsageError
from hwc_onnx.graph.layer_graph import ActivationGroup, LayerGraph
from hwc_onnx.graph.pruned import NM_PATTERNS, block_of
from hwc_onnx.plan import CompressionPlan, LayerConfig, kept_of, width_fields
from hwc_onnx.recovery.layout import layout_of

Kind = Literal["weights", "activations", "pruning", "channels"]

WEIGHT_WIDTHS = (8, 6, 4, 3, 2)
ACTIVATION_WIDTHS = (8, 6, 4)
FINE = ("obs", 0.5)
PATTERN = ("nm24", 0.5)
BLOCKS = ("block4", 0.5)
COARSE = ("reconstruct", 0.3)


@dataclass(frozen=True)
class Setting:
    """One column: its short name, what it compresses and how. `bits` counts for widths, the rest for pruning."""

    name: str
    kind: Kind
    text: str
    bits: int = 0
    algorithm: str = "none"
    ratio: float = 0.0


@dataclass(frozen=True)
class Unit:
    """What is compressed by itself: `name` (layer key, or stored tensor, or root of the channel group) and the layers
    that it concerns: those that read the tensor, or make the channels.
    """

    kind: Kind
    name: str
    layers: tuple[str, ...]


def settings_of(
    widths: Sequence[int] = WEIGHT_WIDTHS, activation_widths: Sequence[int] = ACTIVATION_WIDTHS, blocks: bool = False
) -> list[Setting]:
    """All columns for these widths; one of `blocks` too, which few accelerators skip.

    Raises:
        UsageError: a width is not 2 to 8.
    """
    for name, values in (("widths", widths), ("activation widths", activation_widths)):
        for bits in values:
            if not 2 <= bits <= 8:
                raise UsageError(f"{name}: {bits}; allowed are 2 to 8 bits")
    found = [Setting(f"w{bits}", "weights", f"weights at {bits} bits", bits) for bits in dict.fromkeys(widths)]
    found += [
        Setting(f"a{bits}", "activations", f"the stored tensor that is read, at {bits} bits", bits)
        for bits in dict.fromkeys(activation_widths)
    ]
    return [
        *found,
        Setting("50%", "pruning", "half of the weights zero (obs)", 0, *FINE),
        Setting("2:4", "pruning", "two of every four weights along the input channels zero (nm24)", 0, *PATTERN),
        *([Setting("1x4", "pruning", "half of the blocks of four input channels zero (block4)", 0, *BLOCKS)] if blocks else []),
        Setting("ch30", "channels", "30% of the output channels removed (reconstruct)", 0, *COARSE),
    ]


def units_of(graph: LayerGraph, setting: Setting, chosen: Collection[str], lanes: int = 1) -> list[Unit]:
    """The units that a setting concerns, where any of their layers is `chosen`, in the order of the network."""
    if setting.kind in ("weights", "pruning"):
        layers = [x for x in graph.layers if x.weight is not None and x.key in chosen]
        # of so few inputs a pattern takes none, or all
        least = NM_PATTERNS[setting.algorithm][0] if setting.algorithm in NM_PATTERNS else block_of(setting.algorithm) or 0
        layers = [x for x in layers if layout_of(x).channels > least]
        return [Unit(setting.kind, x.key, (x.key,)) for x in layers]
    if setting.kind == "activations":
        return [
            Unit("activations", group.tensor, group.readers)
            for group in graph.activation_groups
            if any(key in chosen for key in group.readers)
        ]
    return [
        Unit("channels", group.root, group.producers)
        for group in graph.channel_groups
        if group.locked_because is None
        and any(key in chosen for key in group.producers)
        and kept_of(group, setting.ratio, lanes) < group.channels
    ]


def plan_of(graph: LayerGraph, setting: Setting, units: Iterable[Unit]) -> CompressionPlan:
    """The plan that compresses `units` by `setting` and leaves everything else in float."""
    layers = dict.fromkeys((layer.key for layer in graph.layers), IN_FLOAT)
    for unit in units:
        if setting.kind == "activations":
            group = group_named(graph, unit.name)
            for key in group.readers:
                fields = dict.fromkeys(width_fields(graph.layer(key), group), setting.bits)
                layers[key] = layers[key].model_copy(update=fields)
        else:
            layers.update(dict.fromkeys(unit.layers, config_of(setting)))
    return CompressionPlan(source_digest=graph.source_digest, layers=layers)


def tensors_of(graph: LayerGraph, setting: Setting, units: Iterable[Unit]) -> set[str]:
    """The stored tensors that `plan_of` quantizes."""
    if setting.kind != "activations":
        return set()
    return {name for unit in units for name in group_named(graph, unit.name).tensors}


def config_of(setting: Setting) -> LayerConfig:
    """A setting of weights or channels as one layer's, its input in float."""
    if setting.kind == "weights":
        return IN_FLOAT.model_copy(update={"weight_bits": setting.bits})
    return IN_FLOAT.model_copy(update={"algorithm": setting.algorithm, "ratio": setting.ratio})


def requests_of(graph: LayerGraph, settings: Iterable[Setting], chosen: Collection[str]) -> list[Request]:
    """The entries of the layer database that the settings of weights need, for `LayerDatabase.prepare`."""
    return [
        (unit.name, config_of(setting), None, "none")
        for setting in settings
        if setting.kind in ("weights", "pruning")
        for unit in units_of(graph, setting, chosen)
    ]


def group_named(graph: LayerGraph, tensor: str) -> ActivationGroup:
    """The activation group that a stored tensor belongs to."""
    group = graph.activation_group_of(tensor)
    assert group is not None
    return group
