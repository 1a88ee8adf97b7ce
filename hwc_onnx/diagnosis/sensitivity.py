"""How much each layer loses under each kind of compression, alone and with all the others.

One unit at a time is compressed and everything else left in float: so a number is the damage of that unit and of
nothing else, whatever the other layers will become. Beside the sum of these numbers stands the damage of all units
together: damage is not additive, and the ratio says by how much.

Source: per-layer sensitivity by perturbing one layer at a time, HAWQ-V3 (Yao et al., ICML 2021), section 3; that damages
add up about, SPDY (Frantar & Alistarh, ICML 2022), section 3.2.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from hwc_onnx.cost.watched import serves
from hwc_onnx.diagnosis.bench import Bench, Damage, Options
from hwc_onnx.diagnosis.sensitivity_result import Column, Row, Sensitivity
from hwc_onnx.diagnosis.settings import (
    ACTIVATION_WIDTHS,
    WEIGHT_WIDTHS,
    Setting,
    Unit,
    plan_of,
    requests_of,
    settings_of,
    tensors_of,
    units_of,
)
from hwc_onnx.errors import UsageError
from hwc_onnx.events import Listener, Phase, Step
from hwc_onnx.graph.layer_graph import Layer, LayerGraph
from hwc_onnx.graph.selection import selected
from hwc_onnx.workspace import Model

NOTHING = 1e-9
"""Summed damage of a setting below which it is the rounding of sums, and says nothing of the layers."""


def sensitivity(
    model: Model,
    *,
    widths: Sequence[int] = WEIGHT_WIDTHS,
    activation_widths: Sequence[int] = ACTIVATION_WIDTHS,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    on_event: Listener | None = None,
    **options: Any,
) -> Sensitivity:
    """Damage of each layer under each kind of compression alone, everything else in float, and of all layers together.

    Settings: weights at `widths` bits; the stored tensor that the layer reads at `activation_widths` bits; half of the
    weights zero (`obs`) and two of every four (`nm24`); 30% of the channels that the layer makes removed (`reconstruct`),
    where they can go. All with recovery "full".

    Args:
        model: path or ModelProto of a float model.
        widths: bits of weights, 2 to 8.
        activation_widths: bits of activations, 2 to 8.
        include, exclude: patterns of the layers to look at; what these share with others is compressed as a whole.
        on_event: hears the records of `hwc_onnx.events`.
        **options: `data` (synthetic inputs when None), `metric`, `task`, `preset`, `accelerator`, `input_shapes`,
            `split_seed` as for `compress`; `samples` of the search split to measure on (512); `cache_dir` for mappings.

    Raises:
        HwcError: the model, the data, the accelerator or an option is refused.
    """
    started = time.perf_counter()
    settings = settings_of(widths, activation_widths)
    try:
        resolved = Options(**options)
    except TypeError as error:
        raise UsageError(f"sensitivity: {error}; see hwc_onnx.diagnosis.bench.Options for what can be set") from error
    bench = Bench(model, resolved, on_event)
    if serves(bench.cost_model.profile, "1x4"):
        settings = settings_of(widths, activation_widths, blocks=True)
    graph = bench.graph
    chosen = selected(graph, tuple(include), tuple(exclude))
    requests = requests_of(graph, settings, chosen)
    bench.tell(Phase("layers", f"{len(requests)} versions of {len({request[0] for request in requests})} layers"))
    bench.database.prepare(requests, on_done=lambda done, total: bench.tell(Step(done, total, "layers")))
    columns = _measured(bench, settings, chosen)
    cost = bench.cost(bench.calibrated.baseline)
    energies = {node.key: node.total / cost.total if cost.total else 0.0 for node in cost.nodes}
    rows = [
        row
        for layer in graph.layers
        if layer.key in chosen
        for row in _rows(graph, layer, columns, energies.get(layer.key, 0.0))
    ]
    reference = bench.reference
    return Sensitivity(
        tuple(sorted(rows, key=lambda row: -row.damage_share)),
        tuple(columns),
        bench.kind,
        reference.metric.name,
        reference.value,
        len(reference),
        bench.real,
        bench.cost_model.profile.name,
        tuple(bench.notes),
        time.perf_counter() - started,
    )


def _measured(bench: Bench, settings: Sequence[Setting], chosen: set[str]) -> list[Column]:
    """Every setting on each of its units alone and on all together."""
    graph = bench.graph
    units = {setting.name: units_of(graph, setting, chosen) for setting in settings}
    total = sum(len(found) + 1 for found in units.values() if found)
    bench.tell(Phase("measure", f"{total} variants on {len(bench.reference)} samples"))
    done = 0

    def one(setting: Setting, which: Sequence[Unit]) -> Damage:
        nonlocal done
        found = bench.evaluate(plan_of(graph, setting, which), tensors_of(graph, setting, which))
        done += 1
        bench.tell(Step(done, total, setting.name))
        return found

    columns = []
    for setting in settings:
        mine = units[setting.name]
        alone = {unit.name: one(setting, [unit]) for unit in mine}
        columns.append(Column(setting, alone, tuple(mine), one(setting, mine) if mine else None))
    return columns


def _rows(graph: LayerGraph, layer: Layer, columns: Sequence[Column], energy: float) -> list[Row]:
    """The layer's row, or one for each operand that is stored in a group of its own."""
    reads = [graph.activation_group_of(name) for name in layer.inputs]
    names = list(dict.fromkeys(group.tensor for group in reads if group is not None))[
        : 1 if layer.weight is not None else 2
    ]
    rows = []
    for operand, tensor in enumerate(names or [""]):
        units: dict[str, Unit] = {}
        share = 0.0
        for column in columns:
            unit = next((u for u in column.units if _concerns(u, layer, tensor)), None)
            if unit is None:
                continue
            units[column.setting.name] = unit
            if column.total > NOTHING:
                share += column.alone[unit.name].damage / len(unit.layers) / column.total
        used = sum(1 for column in columns if column.units and column.total > NOTHING)
        rows.append(
            Row(
                layer.key,
                layer.op_type,
                graph.layers.index(layer),
                operand,
                energy / len(names or [""]),
                share / max(used, 1),
                units,
            )
        )
    return rows


def _concerns(unit: Unit, layer: Layer, tensor: str) -> bool:
    return unit.name == tensor if unit.kind == "activations" else layer.key in unit.layers
