"""What an accelerator can save at most by each freedom of a search, so that a search for nothing is known beforehand.

Each bound is the energy saved, against dense INT8, by the narrowest widths, by nine of ten weights being zero, or by half the
channels gone (or the highest ratios that are allowed), wherever the options and the network let that be. Accuracy is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hwc_onnx.cost.accelerator import AcceleratorProfile
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.watched import serves
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.graph.pruned import BLOCK_SIZES, NM_PATTERNS, pattern_for
from hwc_onnx.graph.selection import selected
from hwc_onnx.graph.zero_pattern import Pattern, name_of
from hwc_onnx.options import Options
from hwc_onnx.plan import Achieved, CompressionPlan, LayerConfig, with_plan
from hwc_onnx.pruning.table import granularity
from hwc_onnx.uniform import uniform

ZEROS = 0.9
CHANNELS = 0.5
TINY = 0.02
"""A freedom that saves less than this share of the INT8 energy at its extreme is not worth a search."""
FREEDOMS = {
    "weight_bits": "narrower weights",
    "activation_bits": "narrower activations",
    "zeros": "zeros in the weights",
    "channels": "fewer channels",
}


@dataclass(frozen=True)
class Rewards:
    """Shares of the INT8 energy saved at the extreme of each freedom that is searched, and of all at once."""

    single: Mapping[str, float]
    together: float

    @property
    def least(self) -> float:
        """Share of the INT8 energy that is left at least."""
        return 1.0 - max(0.0, self.together, *self.single.values())

    def warning(self, accelerator: str) -> str | None:
        """What the user should know before a search; None where every searched freedom is worth something."""
        idle = [name for name, saved in self.single.items() if saved < TINY]
        if not idle or not self.single:
            return None
        words = ", ".join(f"{FREEDOMS[name]} at most {max(self.single[name], 0.0):.1%}" for name in idle)
        if len(idle) == len(self.single):
            return (
                f"accelerator {accelerator} rewards none of what is searched: of the INT8 energy, {words}; all together save at most "
                f"{max(self.together, 0.0):.1%} (before accuracy is looked at), so expect nothing better than INT8, or choose another "
                "--accel or other freedoms"
            )
        return (
            f"accelerator {accelerator} hardly rewards some of what is searched: of the INT8 energy, {words}; all freedoms together "
            f"save at most {max(self.together, 0.0):.1%}, before accuracy is looked at"
        )


def unsearched_patterns(profile: AcceleratorProfile, options: Options) -> str | None:
    """What to say where the accelerator skips zeros in a pattern that no algorithm of the search makes."""
    made = {name: f"{kept}:{run}" for name, (kept, run) in NM_PATTERNS.items()}
    made |= {name: f"1x{size}" for name, size in BLOCK_SIZES.items()}
    if "fine" not in options.granularity:
        return None
    left = [name for name, pattern in made.items() if serves(profile, pattern) and name not in options.pruning]
    if not left:
        return None
    wanted = ",".join((*options.pruning, *left))
    return (
        f"accelerator {profile.name} skips or stores zeros in the pattern {made[left[0]]}, which this search does not make; "
        f"--algorithms {wanted} searches it too"
    )


def rewards(graph: LayerGraph, options: Options, model: CostModel) -> Rewards:
    """The bounds for a constrained graph under these options (ModelError where a layer fits the accelerator in no way)."""
    keys = set(selected(graph, options.include, options.exclude))
    kinds = {granularity(name) for name in options.pruning}
    reference = uniform(graph, LayerConfig())
    base = model.cost_total(with_plan(graph, reference))
    plans: dict[str, CompressionPlan] = {}
    everything = LayerConfig()
    if options.weight_bits[0] < 8:
        plans["weight_bits"] = _plan(graph, LayerConfig(weight_bits=options.weight_bits[0]), options, keys, None)
        everything = everything.model_copy(update={"weight_bits": options.weight_bits[0]})
    if options.activation_bits[0] < 8:
        plans["activation_bits"] = _plan(graph, LayerConfig(activation_bits=options.activation_bits[0]), options, keys, None)
        everything = everything.model_copy(update={"activation_bits": options.activation_bits[0]})
    if "fine" in kinds:
        plans["zeros"] = _plan(graph, LayerConfig(), options, keys, 1.0 - ZEROS)
    patterns = _skipped(model.profile, options) if "fine" in kinds else []
    if "coarse" in kinds:
        name = next(name for name in options.pruning if granularity(name) == "coarse")
        plans["channels"] = _plan(graph, LayerConfig(algorithm=name, ratio=CHANNELS), options, keys, None)
        everything = everything.model_copy(update={"algorithm": name, "ratio": CHANNELS})
    if not plans or not base:
        return Rewards({}, 0.0)
    plans["together"] = _plan(graph, everything, options, keys, 1.0 - ZEROS if "fine" in kinds else None)
    saved = {}
    for name, plan in plans.items():
        made = with_plan(graph, plan)
        zeros = [made] + [_with_zeros(made, pattern, keys) for pattern in patterns if name in ("zeros", "together")]
        saved[name] = 1.0 - min(model.cost_total(one) for one in zeros) / base
    together = saved.pop("together")
    return Rewards(saved, together)


def _skipped(profile: AcceleratorProfile, options: Options) -> list[Pattern]:
    """Patterns of zeros that the search makes and the accelerator skips or stores as such, at their extreme."""
    made = [pattern_for(name, ZEROS) for name in options.pruning if granularity(name) == "fine"]
    return [pattern for pattern in made if pattern is not None and serves(profile, name_of(pattern))]


def _with_zeros(graph: LayerGraph, pattern: Pattern, keys: set[str]) -> LayerGraph:
    """The graph with zeros of the chosen layers in this pattern, whatever else became of them."""
    layers = tuple(
        replace(layer, nm_pattern=pattern) if layer.weight is not None and layer.key in keys else layer
        for layer in graph.layers
    )
    return replace(graph, layers=layers)


def _plan(
    graph: LayerGraph, config: LayerConfig, options: Options, keys: set[str], density: float | None
) -> CompressionPlan:
    """`config` on the chosen layers as far as it is allowed, with this density of their weights."""
    plan = uniform(
        graph,
        config,
        first_last=options.first_last,
        include=options.include,
        exclude=options.exclude,
        lanes=options.lanes,
        constraints=options.constraints,
        note=lambda _: None,
    )
    if density is None:
        return plan
    zeros = {}
    for layer in graph.layers:
        if layer.weight is not None and layer.key in keys:
            zeros[layer.key] = Achieved(weight_density=max(density, 1.0 - layer.ratio_bounds[1]))
    return plan.model_copy(update={"achieved": zeros})
