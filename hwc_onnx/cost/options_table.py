"""Energy of every layer of a graph under every one of some settings: a table to choose from.

Energy is a sum over layers and tensors, so the best setting of one layer can be read off its row; where tensors stay
on chip, how wide a neighbour stores what the layer reads, and channels that a neighbour lost are settled by the whole
plan (`CostModel.cost`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hwc_onnx.cost.accelerator import AcceleratorProfile
from hwc_onnx.cost.batch import Densities, energies
from hwc_onnx.cost.facts import one_step_facts
from hwc_onnx.cost.mapper import checked_bits, checked_pattern, checked_share
from hwc_onnx.cost.model import CostModel, Settled
from hwc_onnx.cost.operands import Nest
from hwc_onnx.cost.passes import Floats
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.cost.setting import LayerSetting, Place
from hwc_onnx.cost.steps import StepEnergies
from hwc_onnx.errors import MappingError, ModelError
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.graph.loop_dims import LoopDims
from hwc_onnx.graph.zero_pattern import Pattern, share_of
from hwc_onnx.plan import CompressionPlan, LayerConfig, with_plan

INT8_BITS = 8
Base = tuple[LayerSetting, Place]


class TableOption(NamedTuple):
    """What may be done to a layer: widths, share of zeros among its weights, share of its output channels removed.

    `pattern` is (N, M) where the zeros follow an N:M pattern, or `Blocks`; it states their share too.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    zeros: float = 0.0
    removed: float = 0.0
    pattern: Pattern | None = None


def energy_table(
    graph: LayerGraph,
    profile: str | Path | AcceleratorProfile,
    options: Sequence[TableOption],
    *,
    cache_dir: str | Path | None = None,
) -> Floats:
    """Energy of each layer alone under each setting, [layers, options], in the profile's unit.

    A layer reads its input and stores its result at the option's `activation_bits`, results of the network at their own
    width. Tensors are where the INT8 network
    has them, the densities of activations are those of the graph.

    `graph` is what `hwc_onnx.inspect(model)` returns.

    Raises:
        MappingError: an option is out of range.
        ProfileError: the accelerator is not known or wrong.
        ModelError: `graph` is no layer graph, or nothing fits the memories at 8 bits.
    """
    if not isinstance(graph, LayerGraph):
        raise ModelError(
            f"energy_table: found {type(graph).__name__}, expected a layer graph; hwc_onnx.inspect(model) returns that of a file"
        )
    options = [_checked(option) for option in options]
    if not graph.layers:
        return np.empty((0, len(options)))
    if not isinstance(profile, AcceleratorProfile):
        profile = load_profile(profile)
    model = CostModel(profile, cache_dir)
    keys = [layer.key for layer in graph.layers]
    int8 = with_plan(graph, CompressionPlan.uniform(keys, LayerConfig()))
    settled = model.settle(int8)
    bases = _bases(int8, settled, model.energies)
    return np.stack([_row(model.energies, *bases[key], options) for key in keys])


def _checked(option: TableOption) -> TableOption:
    """The option with plain numbers; refused where `map_layer` would refuse them (MappingError)."""
    if not isinstance(option, TableOption):
        raise MappingError(f"options: found {type(option).__name__}, expected TableOption, such as TableOption(weight_bits=4)")
    return TableOption(
        checked_bits(option.weight_bits, "weight_bits"),
        checked_bits(option.activation_bits, "activation_bits"),
        checked_share(option.zeros, "zeros"),
        checked_share(option.removed, "removed", below=True),
        checked_pattern(option.pattern),
    )


def _bases(graph: LayerGraph, settled: Settled, energies: StepEnergies) -> dict[str, Base]:
    """Setting and place of each layer in the INT8 network."""
    found = {}
    for step, situation in zip(settled.steps, settled.situations, strict=True):
        facts = one_step_facts(graph, step, settled.biases)
        for number, index in enumerate(step.layers):
            place = energies.place(facts, number, situation.staying, situation.free, situation.kept)
            found[graph.layers[index].key] = facts.layers[number][0], place
    return found


def _row(step_energies: StepEnergies, base: LayerSetting, place: Place, options: Sequence[TableOption]) -> Floats:
    """One layer: options of equal widths and shape are asked for together."""
    made = [_setting(base, option) for option in options]
    groups: dict[LayerSetting, list[int]] = {}
    for i, setting in enumerate(made):
        groups.setdefault(setting._replace(activation_density=1.0, weight_density=1.0, out_density=1.0), []).append(i)
    row = np.empty(len(options))
    for setting, members in groups.items():
        densities = Densities(
            np.array([made[i].activation_density for i in members]),
            np.array([made[i].weight_density for i in members]),
            np.array([made[i].out_density for i in members]),
        )
        table = step_energies.tables.table(setting.dims)
        row[members] = energies(step_energies.query, table, setting, place, densities)
    return row


def _setting(base: LayerSetting, option: TableOption) -> LayerSetting:
    """The layer's record under an option."""
    made = base._replace(
        activation_bits=option.activation_bits,
        weight_bits=option.weight_bits if base.weighted else option.activation_bits,
        # a result of the network keeps its width
        out_bits=option.activation_bits if base.out_bits == INT8_BITS else base.out_bits,
    )
    if not base.weighted:
        return made
    kept = share_of(option.pattern, base.dims.C) if option.pattern is not None else 1.0 - option.zeros
    made = made._replace(weight_density=base.weight_density * kept, nm=option.pattern or base.nm)
    if not option.removed:
        return made
    dims = _fewer(base.dims, option.removed)
    outputs = Nest(dims).words("O") / max(1, Nest(base.dims).words("O"))
    return made._replace(dims=dims, channels=dims.K * dims.G, out_words=round(base.out_words * outputs))


def _fewer(dims: LoopDims, ratio: float) -> LoopDims:
    """The shape with a share of its output channels removed; a depthwise layer loses groups."""
    if dims.K == 1 and dims.G > 1:
        return replace(dims, G=max(1, round(dims.G * (1 - ratio))))
    return replace(dims, K=max(1, round(dims.K * (1 - ratio))))
