"""What the same three settings save on each accelerator, and how far each could go.

    python benchmarks/hardware_matters.py [--model sample_models/mobilenetv2_small.onnx] [--write docs/hardware.md]

Energy saved against dense INT8 on the same accelerator, by one setting wherever it is allowed: 4-bit weights and
activations (the network's input and the last layer's stay at 8), half of the weights zero, half of the channels gone.
The bound is 2-bit weights, 90 % of them zero and half the channels, all at once; activations at 8 bits, or at 2.
Accuracy is not looked at, activations count as dense.

On chip: tensors may stay in the home memory between layers (`residency.activations: auto`), or all go through DRAM (`never`).
Static: power that makes up the stated share of the INT8 energy, times the cycles of each variant.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from silicon import filled

from hwc_onnx.cost.accelerator import AcceleratorProfile, Static
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import list_profiles, load_profile
from hwc_onnx.cost.types import ModelCost
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.plan import Achieved, CompressionPlan, LayerConfig, with_plan
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.workspace import open_model

SAMPLES = Path(__file__).parents[1] / "sample_models"
SETTINGS = {"4-bit": "w4a4", "50 % zeros": "w8a8,fine=magnitude:0.5", "50 % channels": "w8a8,coarse=l1:0.5"}
BOUNDS = {"bound": 8, "bound, 2-bit activations": 2}
"""Activation bits."""
STATIC_SHARES = (0.0, 0.2)
ROUNDS = 3
"""Times that static power is adjusted: it changes which mapping is best, and so the cycles."""


@dataclass(frozen=True)
class Savings:
    """Dense INT8 on an accelerator in one mode, and the share of its energy that each setting saves."""

    int8: ModelCost
    saved: dict[str, float]


def variants(graph: LayerGraph) -> dict[str, LayerGraph]:
    """The network under each setting."""
    made = {name: with_plan(graph, uniform(graph, parse_spec(spec))) for name, spec in SETTINGS.items()}
    for name, bits in BOUNDS.items():
        plan = uniform(graph, parse_spec(f"w2a{bits},coarse=l1:0.5"), first_last="free")
        zeros = {layer.key: Achieved(weight_density=0.1) for layer in graph.layers if layer.weight is not None}
        made[name] = with_plan(graph, plan.model_copy(update={"achieved": zeros}))
    return made


def int8(graph: LayerGraph) -> LayerGraph:
    """The baseline."""
    return with_plan(graph, CompressionPlan.uniform([layer.key for layer in graph.layers], LayerConfig()))


def with_static(profile: AcceleratorProfile, graph: LayerGraph, share: float) -> CostModel:
    """The model of an accelerator whose static energy is this share of what `graph` costs."""
    model = CostModel(profile)
    if share == 0.0:
        return model
    pj = 1.0 if profile.unit == "pJ" else profile.reference_mac_pj or 1.0
    for _ in range(ROUNDS):
        cost = model.cost(graph)
        active = (cost.total - cost.energy["leakage"]) * pj
        milliwatts = active * share / (1 - share) / cost.latency_s * 1e-9
        model = CostModel(profile.model_copy(update={"static": Static(power_mw=milliwatts)}))
    return model


def savings(profile: AcceleratorProfile, graph: LayerGraph, share: float) -> Savings:
    """One accelerator in one mode."""
    baseline = int8(graph)
    model = with_static(profile, baseline, share)
    cost = model.cost(baseline)
    return Savings(cost, {name: 1 - model.cost_total(g) / cost.total for name, g in variants(graph).items()})


def modes(profile: AcceleratorProfile) -> list[AcceleratorProfile | None]:
    """The accelerator with tensors that may stay on chip (None where no memory is their home), and without."""
    found: list[AcceleratorProfile | None] = []
    for activations in ("auto", "never"):
        residency = profile.residency.model_copy(update={"activations": activations})
        possible = activations == "never" or profile.home is not None
        found.append(profile.model_copy(update={"residency": residency}) if possible else None)
    return found


def row(name: str, graph: LayerGraph, share: float) -> str:
    """One accelerator in a row of Markdown."""
    both = [None if profile is None else savings(profile, graph, share) for profile in modes(load_profile(name))]
    energy = [None if one is None or one.int8.joules is None else one.int8.joules * 1e6 for one in both]
    cells = [" / ".join("-" if value is None else f"{value:.0f}" for value in energy)]
    for setting in (*SETTINGS, *BOUNDS):
        shares = [None if one is None else round(100 * one.saved[setting]) for one in both]
        cells.append(" / ".join("-" if value is None else f"{value}" for value in shares))
    return f"| `{name}` | {' | '.join(cells)} |"


def report(model: Path) -> Iterator[str]:
    """Everything, as Markdown."""
    graph = open_model(model).graph
    yield f"`{model.stem}`, % of the energy of dense INT8 saved, tensors staying on chip / all through DRAM:"
    for share in STATIC_SHARES:
        yield f"\n## {f'Static share {share:.0%} of INT8' if share else 'No static power'}\n"
        yield f"| accelerator | INT8, uJ | {' | '.join((*SETTINGS, *BOUNDS))} |"
        yield "|---" * (2 + len(SETTINGS) + len(BOUNDS)) + "|"
        for name in list_profiles():
            yield row(name, graph, share)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="What the same settings save on each accelerator.")
    parser.add_argument("--model", type=Path, default=SAMPLES / "resnet20.onnx")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="put the tables into this page instead of printing them"
    )
    args = parser.parse_args()
    if args.write is None:
        for line in report(args.model):
            print(line, flush=True)
    else:
        body = "\n".join(report(args.model))
        args.write.write_text(filled(args.write.read_text(encoding="utf-8"), body), encoding="utf-8")


if __name__ == "__main__":
    main()
