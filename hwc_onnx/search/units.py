"""Decision units of a model: what may be chosen, reduced to what is worth choosing.

An option stays when no other of its unit is cheaper and clearly less harmful, at wide or at narrow stored tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.errors import UsageError
from hwc_onnx.events import Step
from hwc_onnx.graph.layer_graph import ActivationGroup, ChannelGroup, LayerGraph
from hwc_onnx.plan import CompressionPlan, LayerConfig
from hwc_onnx.search.costing import Costing
from hwc_onnx.search.layer_table import Fact, LayerTable, reader_fields
from hwc_onnx.search.menus import menu
from hwc_onnx.search.problem import Choices, Option, Unit
from hwc_onnx.uniform import kept_groups

SLACK = 0.15
"""An option up to this much more harmful than a cheaper one stays: predictions are not better than that."""
LAYER_MENU = 24
CHANNEL_MENU = 8
BASELINE_BITS = 8
AS_BASELINE = (Option(), Option(bits=BASELINE_BITS))


@dataclass(frozen=True)
class Freedom:
    """What may change: layer keys, weight widths, stored-tensor widths, and whether the network's ends may too.

    Of the layers whose bounds leave no ratio of zero, `finely` are pruned in their weights; the channel groups of the others
    (`coarsely`, by root) lose channels.
    """

    layers: frozenset[str]
    weight_bits: tuple[int, int]
    activation_bits: tuple[int, int]
    free_ends: bool
    finely: frozenset[str] = frozenset()
    coarsely: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Menus:
    """Units in network order with damages [options] and, for layer units, weight densities; `start` is INT8."""

    units: tuple[Unit, ...]
    damage: tuple[NDArray[np.float64], ...]
    start: tuple[int, ...]
    facts: Mapping[str, Mapping[Option, Fact]]


def build_units(
    graph: LayerGraph,
    table: LayerTable,
    costing: Costing,
    gains: Mapping[str, float],
    freedom: Freedom,
    tell: Callable[[Step], None],
) -> Menus:
    """The units of a model in network order: a tensor before the first layer that reads it, a channel group after its
    first producer. Units whose single option is what the baseline has are left out.
    """
    free = searched_tensors(graph, freedom)
    facts = _layer_facts(searched_layers(graph, freedom), freedom, table, costing, tell)
    units: list[tuple[Unit, NDArray[np.float64]]] = []
    seen: set[str] = set()
    for done, layer in enumerate(graph.layers):
        tell(Step(done, len(graph.layers), f"options of {layer.key}"))
        for tensor in layer.inputs:
            group = graph.activation_group_of(tensor)
            if group is not None and group.tensor in free and group.tensor not in seen:
                seen.add(group.tensor)
                units.append(_activation_unit(group, table, gains, freedom))
        if layer.weight is not None and layer.key in freedom.layers:
            units.append(_layer_unit(layer.key, facts[layer.key], gains[layer.key]))
        channels = graph.group_of(layer.key)
        if channels is not None and channels.root not in seen and searched_channels(channels, freedom):
            seen.add(channels.root)
            options = {} if channels.root in freedom.coarsely else {Option(): 0.0}
            options |= table.coarse_options(channels, gains)
            units.append(_channel_unit(channels.root, channels.producers, options, costing))
    chosen = [(unit, damage) for unit, damage in units if len(unit.options) > 1 or unit.options[0] not in AS_BASELINE]
    return Menus(
        tuple(unit for unit, _ in chosen),
        tuple(damage for _, damage in chosen),
        tuple(_start(unit) for unit, _ in chosen),
        facts,
    )


def plan_with(menus: Menus, baseline: CompressionPlan, choices: Choices, graph: LayerGraph) -> CompressionPlan:
    """The baseline with canonical choices carried out."""
    changes: dict[str, dict[str, object]] = {}
    for unit, chosen in zip(menus.units, choices, strict=True):
        option = unit.options[chosen]
        if unit.kind == "layer":
            settings = {"algorithm": option.algorithm, "ratio": option.ratio, "weight_bits": option.bits}
            changes.setdefault(unit.name, {}).update(settings)
        elif unit.kind == "activation":
            group = graph.activation_group_of(unit.name)
            assert group is not None
            for key, field in reader_fields(graph, group):
                changes.setdefault(key, {})[field] = option.bits
    for unit, chosen in zip(menus.units, choices, strict=True):
        option = unit.options[chosen]
        if unit.kind == "channels" and option.algorithm != "none":
            for key in unit.layers:
                changes.setdefault(key, {}).update(algorithm=option.algorithm, ratio=option.ratio)
    layers = {
        key: LayerConfig.model_validate(config.model_dump() | changes.get(key, {}))
        for key, config in baseline.layers.items()
    }
    return baseline.model_copy(update={"layers": layers, "achieved": {}, "activation_density": {}})


def searched_layers(graph: LayerGraph, freedom: Freedom) -> list[str]:
    """Layers whose weights are searched, in network order."""
    return [layer.key for layer in graph.layers if layer.weight is not None and layer.key in freedom.layers]


def searched_tensors(graph: LayerGraph, freedom: Freedom) -> dict[str, ActivationGroup]:
    """Activation groups whose width is searched, by their first tensor."""
    kept = set() if freedom.free_ends else {group.tensor for group in kept_groups(graph)}
    return {
        group.tensor: group
        for group in graph.activation_groups
        if group.readers and group.tensor not in kept and set(group.readers) <= freedom.layers
    }


def searched_channels(group: ChannelGroup, freedom: Freedom) -> bool:
    """Whether channels of this group may be removed."""
    producers = set(group.producers)
    return group.locked_because is None and bool(producers) and producers <= freedom.layers - freedom.finely


def demanded(graph: LayerGraph, table: LayerTable, freedom: Freedom) -> Freedom:
    """The freedom with the layers that their bounds want pruned, in their weights where some algorithm can.

    Raises:
        UsageError: nothing that may be chosen can prune one of them within its bounds.
    """
    asked = [key for key in searched_layers(graph, freedom) if graph.layer(key).ratio_bounds[0] > 0.0]
    coarsely: dict[str, ChannelGroup] = {}
    for key in asked:
        group = graph.group_of(key)
        if table.can_prune(key):
            continue
        if group is None or not searched_channels(group, freedom) or not table.can_remove(group):
            low, high = graph.layer(key).ratio_bounds
            raise UsageError(
                f"ratio bounds: layer '{key}' is to lose {low:g} to {high:g}, and nothing that may be chosen does that"
                f"{_hindrance(group, freedom)}; widen the bounds, or allow more with --algorithms or --granularity"
            )
        coarsely[group.root] = group
    # where channels must go, all that makes them is pruned by that
    by_channels = {key for group in coarsely.values() for key in group.producers}
    finely = frozenset(key for key in asked if table.can_prune(key)) - by_channels
    return replace(freedom, finely=finely, coarsely=frozenset(coarsely))


def _hindrance(group: ChannelGroup | None, freedom: Freedom) -> str:
    """Why the channels of a group stay, if that can be said."""
    if group is None:
        return ""
    if group.locked_because is not None:
        return f" ({group.locked_because})"
    outside = sorted(set(group.producers) - freedom.layers)
    return f" (its channels are made by '{outside[0]}' too, which is left out)" if outside else ""


def _layer_facts(
    keys: list[str], freedom: Freedom, table: LayerTable, costing: Costing, tell: Callable[[Step], None]
) -> dict[str, dict[Option, Fact]]:
    """Each layer's menu with facts: composed facts choose who is worth an entry of its own, exact facts who stays."""
    offered = {key: table.fine_options(key) for key in keys}
    for key in freedom.finely & set(keys):
        offered[key] = {option: fact for option, fact in offered[key].items() if option.algorithm != "none"}
    wanted = {key: _reduced(key, offered[key], costing) for key in keys}
    table.prepare_options(
        {key: [option for option, fact in facts.items() if not fact.exact] for key, facts in wanted.items()},
        lambda done, total: tell(Step(done, total, "layers: the settings worth a place on the menu")),
    )
    exact = {
        key: {option: fact if fact.exact else table.exact(key, option) for option, fact in facts.items()}
        for key, facts in wanted.items()
    }
    return {key: _reduced(key, facts, costing) for key, facts in exact.items()}


def _reduced(key: str, facts: Mapping[Option, Fact], costing: Costing) -> dict[Option, Fact]:
    options = list(facts)
    energy = np.array([costing.option_energy(key, option, facts[option].density) for option in options])
    errors = np.array([facts[option].error for option in options])
    keep = menu(options, energy, np.maximum(errors - errors.min(), 0.0), LAYER_MENU, SLACK)
    return {options[i]: facts[options[i]] for i in keep}


def _layer_unit(key: str, facts: Mapping[Option, Fact], gain: float) -> tuple[Unit, NDArray[np.float64]]:
    least = min(fact.error for fact in facts.values())
    damage = gain * np.array([max(fact.error - least, 0.0) for fact in facts.values()])
    return Unit("layer", key, tuple(facts), (key,)), damage


def _activation_unit(
    group: ActivationGroup, table: LayerTable, gains: Mapping[str, float], freedom: Freedom
) -> tuple[Unit, NDArray[np.float64]]:
    low, high = freedom.activation_bits
    options = tuple(Option(bits=bits) for bits in range(high, low - 1, -1))
    damage = np.array([table.width_damage(group, option.bits, gains) for option in options])
    return Unit("activation", group.tensor, options, group.readers), np.maximum.accumulate(damage)


def _channel_unit(
    root: str, producers: tuple[str, ...], options: Mapping[Option, float], costing: Costing
) -> tuple[Unit, NDArray[np.float64]]:
    names = list(options)
    energy = np.array([costing.channel_energy(root, option) for option in names])
    damage = np.array(list(options.values()))
    keep = menu(names, energy, damage, CHANNEL_MENU, SLACK)
    unit = Unit("channels", root, tuple(names[i] for i in keep), producers)
    return unit, damage[keep]


def _start(unit: Unit) -> int:
    """The option nearest to the INT8 baseline: unpruned and closest to 8 bits."""
    distance = [(option.algorithm != "none", abs(option.bits - BASELINE_BITS)) for option in unit.options]
    return distance.index(min(distance))
