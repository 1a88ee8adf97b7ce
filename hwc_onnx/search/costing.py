"""Energy of choices without building anything: facts from the database put into a variant of the layer graph.

The exact figure is the cost model's on the whole variant. For the solver the energy is also split into one factor per
step of the schedule: it depends on the step's own layer, the widths of the tensors it reads and writes, and the channel
groups around it. What stays on chip is taken from the baseline there.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.schedule import Step
from hwc_onnx.database import LayerDatabase
from hwc_onnx.graph.layer_graph import FLOAT_BITS, LayerGraph
from hwc_onnx.graph.pruned import pattern_for
from hwc_onnx.graph.variant import Part, Setting, variant
from hwc_onnx.graph.zero_pattern import Pattern
from hwc_onnx.plan import CompressionPlan, channel_choice, group_bits, kept_of, with_plan
from hwc_onnx.search.problem import Choices, Factor, Option

if TYPE_CHECKING:
    from hwc_onnx.search.space import Space
    from hwc_onnx.search.units import Menus

NARROW = 4
MEMORY = 200_000
"""Remembered energies of steps; beyond it everything is forgotten at once."""
PARTS = {
    "arithmetic": ("mac",),
    "memory": ("register", "noc", "buffer"),
    "off_chip": ("dram",),
    "other": ("vector", "decode", "leakage"),
}
"""Components of the cost model behind each share of energy that the agents see."""
IMPOSSIBLE = 1e3
"""Stands for a step that fits the accelerator in no way, so that differences stay finite."""


@dataclass
class _Draft:
    """A setting in the making: the baseline's, to be changed unit by unit."""

    weight_bits: dict[str, int]
    weight_density: dict[str, float]
    group_bits: list[int]
    density: dict[str, float]
    kept: dict[str, int] = field(default_factory=dict)
    pattern: dict[str, Pattern] = field(default_factory=dict)
    algorithm: dict[str, str] = field(default_factory=dict)

    def setting(self) -> Setting:
        """What the variant takes."""
        return Setting(
            self.weight_bits,
            self.weight_density,
            self.group_bits,
            self.density,
            self.kept,
            self.pattern,
            self.algorithm,
        )


class Costing:
    """The accelerator's view of one model's choices, in fractions of the INT8 baseline's energy."""

    def __init__(
        self, graph: LayerGraph, database: LayerDatabase, cost_model: CostModel, baseline: CompressionPlan
    ) -> None:
        self._graph, self._database, self._model = graph, database, cost_model
        cost = cost_model.cost(with_plan(graph, baseline))
        self.baseline_total = cost.total
        self.shares = {
            name: sum(cost.energy.get(part, 0.0) for part in parts) / max(cost.total, 1e-30) for name, parts in PARTS.items()
        }
        self._position = {group.tensor: i for i, group in enumerate(graph.activation_groups)}
        self._widths = group_bits(graph, baseline)
        self._known: dict[tuple[int, tuple[int, ...]], float] = {}
        self._densities: dict[tuple[str, int], dict[str, float]] = {}
        self._narrow = [min(NARROW, bits) for bits in self._widths]
        self._narrow_density = dict(baseline.activation_density)
        for tensor in self._position:
            self._narrow_density.update(self._density(tensor, self._narrow[self._position[tensor]]))
        self._settled = cost_model.settle(with_plan(graph, baseline))
        self._step_of = {
            graph.layers[i].key: index for index, step in enumerate(self._settled.steps) for i in step.layers
        }
        self._parts = [self._part(step) for step in self._settled.steps]
        self._groups = {group.root: group for group in graph.channel_groups}
        self._members = {
            group.root: frozenset(member.tensor for member in group.members) for group in graph.channel_groups
        }
        kept = {group.root: count for group in graph.channel_groups if (count := channel_choice(baseline, group)) is not None}
        self._first = _Draft(
            {key: config.weight_bits for key, config in baseline.layers.items()},
            {key: record.weight_density for key, record in baseline.achieved.items()},
            list(self._widths),
            dict(baseline.activation_density),
            kept,
            algorithm={key: config.algorithm for key, config in baseline.layers.items()},
        )

    def bind(self, menus: Menus, space: Space) -> None:
        """Say which units the choices are about."""
        self._menus, self._space = menus, space

    def energy(self, choices: Choices) -> float:
        """Energy of canonical choices."""
        draft = self._base()
        for u, chosen in enumerate(choices):
            self._apply(draft, u, int(chosen))
        return self._model.cost_total(variant(self._graph, draft.setting())) / self.baseline_total

    def option_energy(self, key: str, option: Option, density: float) -> float:
        """Energy of one layer's step under an option, averaged over wide and narrow stored tensors."""
        total = 0.0
        for widths in (self._widths, self._narrow):
            draft = self._base()
            draft.group_bits = list(widths)
            if widths is not self._widths:
                draft.density = dict(self._narrow_density)
            self._set_layer(draft, key, option, density)
            total += self._step_energy(self._step_of[key], draft)
        return total / 2.0

    def channel_energy(self, root: str, option: Option) -> float:
        """Energy of the baseline with the channels of one group removed."""
        draft = self._base()
        if option.algorithm != "none":
            draft.kept[root] = self._left(root, option)
        return self._model.cost_total(variant(self._graph, draft.setting())) / self.baseline_total

    def factors(self) -> tuple[Factor, ...]:
        """One factor per step of the accelerator's schedule: a layer with what is fused into it, or a node without."""
        names: dict[tuple[str, str], int] = {(unit.kind, unit.name): u for u, unit in enumerate(self._menus.units)}
        return tuple(self._factor(index, self._scope(step, names)) for index, step in enumerate(self._settled.steps))

    def _factor(self, index: int, scope: tuple[int, ...]) -> Factor:
        alike = [self._alike(u) for u in scope]

        def energy(chosen: tuple[int, ...]) -> float:
            key = (index, tuple(first[option] for first, option in zip(alike, chosen, strict=True)))
            found = self._known.get(key)
            if found is None:
                draft = self._base()
                for u, option in zip(scope, key[1], strict=True):
                    self._apply(draft, u, option)
                if len(self._known) >= MEMORY:
                    self._known.clear()
                found = self._known[key] = self._step_energy(index, draft)
            return found

        return Factor(scope, energy)

    def _alike(self, unit: int) -> list[int]:
        """For each option of a unit, the first that costs the same everywhere: algorithms differ in which weights go, not in energy."""
        found, firsts = self._menus.units[unit], dict[Hashable, int]()
        keys: list[Hashable] = [option.bits for option in found.options]
        if found.kind == "layer":
            facts = self._menus.facts[found.name]
            keys = [(option.bits, facts[option].density, pattern_for(option.algorithm, option.ratio)) for option in found.options]
        elif found.kind == "channels":
            keys = [None if option.algorithm == "none" else self._left(found.name, option) for option in found.options]
        return [firsts.setdefault(key, o) for o, key in enumerate(keys)]

    def _part(self, step: Step) -> Part:
        """What of the graph a step's energy is computed from."""
        nodes = [self._graph.nodes[i] for i in step.nodes]
        touched = {name for node in nodes for name in (*node.inputs, *node.outputs) if name}
        touched |= {name for _, name, _ in (*step.reads, *step.writes)}
        return Part(frozenset(step.layers), frozenset(touched))

    def _scope(self, step: Step, names: Mapping[tuple[str, str], int]) -> tuple[int, ...]:
        """The units that a step's energy depends on."""
        touched = self._part(step).tensors
        scope = [("layer", self._graph.layers[i].key) for i in step.layers]
        for name in sorted(touched):
            group = self._graph.activation_group_of(name)
            if group is not None:
                scope.append(("activation", group.tensor))
        for channels in self._graph.channel_groups:
            if touched & self._members[channels.root]:
                scope.append(("channels", channels.root))
        return tuple(dict.fromkeys(names[place] for place in scope if place in names))

    def _step_energy(self, index: int, draft: _Draft) -> float:
        changed = variant(self._graph, draft.setting(), self._parts[index])
        energy = self._model.step_energy(changed, self._settled, index) / self.baseline_total
        return min(energy, IMPOSSIBLE)

    def _base(self) -> _Draft:
        first = self._first
        return _Draft(
            first.weight_bits.copy(),
            first.weight_density.copy(),
            first.group_bits.copy(),
            first.density.copy(),
            first.kept.copy(),
            algorithm=first.algorithm.copy(),
        )

    def _apply(self, draft: _Draft, unit: int, option: int) -> None:
        found = self._menus.units[unit]
        chosen = found.options[option]
        if found.kind == "layer":
            self._set_layer(draft, found.name, chosen, self._menus.facts[found.name][chosen].density)
        elif found.kind == "activation":
            self._store(draft, found.name, chosen.bits)
        elif chosen.algorithm != "none":
            draft.kept[found.name] = self._left(found.name, chosen)

    def _set_layer(self, draft: _Draft, key: str, option: Option, density: float) -> None:
        draft.weight_bits[key] = option.bits
        draft.weight_density[key] = density
        draft.algorithm[key] = option.algorithm
        pattern = pattern_for(option.algorithm, option.ratio)
        if pattern is not None:
            draft.pattern[key] = pattern

    def _left(self, root: str, option: Option) -> int:
        """Channels of a group that stay under an option."""
        return kept_of(self._groups[root], option.ratio, self._database.lanes)

    def _store(self, draft: _Draft, tensor: str, bits: int) -> None:
        draft.group_bits[self._position[tensor]] = bits
        draft.density.update(self._density(tensor, bits))

    def _density(self, tensor: str, bits: int) -> Mapping[str, float]:
        """Share of elements that are not zero, for each tensor of the group of `tensor`."""
        memo = (tensor, bits)
        if memo not in self._densities:
            group = self._graph.activation_groups[self._position[tensor]]
            self._densities[memo] = (
                {}
                if bits >= FLOAT_BITS
                else {name: self._database.activation_density(name, bits) for name in group.tensors}
            )
        return self._densities[memo]
