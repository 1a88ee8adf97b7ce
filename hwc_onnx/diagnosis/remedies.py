"""What can be done about a layer that loses accuracy: other widths, ranges, repairs, algorithms, or leaving it in float."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from hwc_onnx.database import LayerDatabase
from hwc_onnx.diagnosis.bench import Damage
from hwc_onnx.diagnosis.shares import Part, read_groups, removed_group, with_input_bits, with_layer, without
from hwc_onnx.graph.layer_graph import FLOAT_BITS, LayerGraph
from hwc_onnx.graph.pruned import NM_PATTERNS, block_of
from hwc_onnx.plan import CompressionPlan, LayerConfig, group_bits
from hwc_onnx.pruning.table import COARSE, FINE
from hwc_onnx.quantization.ranges import METHODS, Method
from hwc_onnx.recovery.layer import Recovery

ENOUGH = 0.5
"""A remedy that leaves at most this share of the damage is good enough; the one that adds least energy is best."""


@dataclass(frozen=True)
class Remedy:
    """One change: `plan` is the whole plan with it; `recovery` and `ranges` hold for the whole plan where they are not None.

    `change` says what to change, in the plan file or on the command line.
    """

    name: str
    part: Part | None
    change: str
    plan: CompressionPlan
    recovery: Recovery | None = None
    ranges: Method | None = None

    @property
    def planwide(self) -> bool:
        """Whether it is an option of the whole plan."""
        return self.recovery is not None or self.ranges is not None


@dataclass(frozen=True)
class Trial:
    """A remedy tried: the layer's damage alone with it, and the energy of the whole plan with it over that without.

    `energy` is None for an option of the whole plan, which changes no width.
    """

    remedy: Remedy
    damage: Damage
    energy: float | None

    @property
    def added(self) -> float:
        """Energy added, as a share of the plan's."""
        return 0.0 if self.energy is None else self.energy - 1.0


def remedies(
    graph: LayerGraph, plan: CompressionPlan, key: str, parts: Collection[Part], database: LayerDatabase
) -> list[Remedy]:
    """What can be tried on these parts of a layer; leaving the whole layer in float comes last."""
    found: list[Remedy] = []
    if "weights" in parts:
        found += _of_weights(plan, key)
    if "input" in parts:
        found += _of_input(graph, plan, key, database)
    if "channels" in parts:
        found += _of_channels(graph, plan, key)
    if database.recovery != "full" and {"weights", "channels"} & set(parts):
        part: Part = "weights" if "weights" in parts else "channels"
        found.append(Remedy("recovery full", part, "--recovery full", plan, recovery="full"))
    left = without(graph, plan, key)
    changes = ", ".join(_differences(plan, left))
    return [*found, Remedy("leave in float", None, changes, left)]


def best_of(trials: Collection[Trial], before: float) -> Trial | None:
    """The trial that leaves at most half of the damage `before` for the least energy; else the one that leaves least."""
    if not trials:
        return None
    enough = [trial for trial in trials if trial.damage.damage <= ENOUGH * before]
    if enough:
        return min(enough, key=lambda trial: (trial.added, trial.damage.damage))
    return min(trials, key=lambda trial: trial.damage.damage)


def merged_layers(plan: CompressionPlan, changed: Iterable[CompressionPlan]) -> dict[str, LayerConfig]:
    """The settings with the changes of several plans, field by field; of two widths the wider one, of other fields the later.

    Each of the plans changes a shared width for all who share it, so the result is one that can be carried out.
    """
    layers = dict(plan.layers)
    for other in changed:
        for key, config in other.layers.items():
            fields = {
                field: max(getattr(layers[key], field), after) if field.endswith("_bits") else after
                for field, after in config.model_dump().items()
                if after != getattr(plan.layers[key], field)
            }
            layers[key] = layers[key].model_copy(update=fields)
    return layers


def _of_weights(plan: CompressionPlan, key: str) -> Iterator[Remedy]:
    config = plan.layers[key]
    for bits in _wider(config.weight_bits):
        wide = with_layer(plan, [key], weight_bits=bits)
        yield Remedy(f"weights {_bits(bits)}", "weights", _field(key, "weight_bits", config.weight_bits, bits), wide)
    if config.algorithm not in FINE:
        return
    for name in FINE:
        alike = (name in NM_PATTERNS, block_of(name)) == (config.algorithm in NM_PATTERNS, block_of(config.algorithm))
        if name != config.algorithm and alike:
            ratio = 1 - NM_PATTERNS[name][0] / NM_PATTERNS[name][1] if name in NM_PATTERNS else config.ratio
            other = with_layer(plan, [key], algorithm=name, ratio=ratio)
            yield Remedy(f"algorithm {name}", "weights", _field(key, "algorithm", config.algorithm, name), other)
    dense = with_layer(plan, [key], algorithm="none", ratio=0.0)
    yield Remedy("no zeros", "weights", _field(key, "algorithm", config.algorithm, "none"), dense)


def _of_input(graph: LayerGraph, plan: CompressionPlan, key: str, database: LayerDatabase) -> Iterator[Remedy]:
    groups = {group.tensor for group in read_groups(graph, graph.layer(key))}
    widths = [
        bits
        for group, bits in zip(graph.activation_groups, group_bits(graph, plan), strict=True)
        if group.tensor in groups and bits < FLOAT_BITS
    ]
    for bits in _wider(min(widths)):
        wide = with_input_bits(graph, plan, key, bits)
        yield Remedy(f"input {_bits(bits)}", "input", ", ".join(_differences(plan, wide)), wide)
    for method in METHODS:
        if method != database.ranges:
            yield Remedy(f"ranges {method}", "input", f"--ranges {method}", plan, ranges=method)


def _of_channels(graph: LayerGraph, plan: CompressionPlan, key: str) -> Iterator[Remedy]:
    cut, config = removed_group(graph, plan, key), plan.layers[key]
    assert cut is not None
    for name in COARSE:
        if name != config.algorithm:
            other = with_layer(plan, cut.producers, algorithm=name)
            yield Remedy(f"algorithm {name}", "channels", ", ".join(_differences(plan, other)), other)
    half = with_layer(plan, cut.producers, ratio=config.ratio / 2)
    yield Remedy("half as many channels", "channels", ", ".join(_differences(plan, half)), half)


def _wider(bits: int) -> list[int]:
    """Widths to try: one and two bits more and 8, or float where it has 8."""
    return [FLOAT_BITS] if bits >= 8 else sorted({min(bits + 1, 8), min(bits + 2, 8), 8})


def _bits(bits: int) -> str:
    return "in float" if bits >= FLOAT_BITS else f"{bits} bits"


def _field(key: str, field: str, old: object, new: object) -> str:
    return f'layers."{key}".{field}: {old} -> {new}'


def _differences(old: CompressionPlan, new: CompressionPlan) -> list[str]:
    """Every field of a setting in which two plans differ."""
    return [
        _field(key, field, before, after)
        for key, config in old.layers.items()
        for field, before in config.model_dump().items()
        if (after := getattr(new.layers[key], field)) != before
    ]
