"""Which layers lose accuracy under a plan, why, and what helps.

The layers are ranked by what the layer database says of their output error. Those of the largest error are measured alone,
everything else in float; the ones that lose most so are measured in a second way: the whole plan with this layer back in
float. The cause
follows from measured facts (`causes.py`); remedies are tried on the layer, and the best of each once more in the plan.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hwc_onnx.accuracy.data_shapes import shapes_from_data
from hwc_onnx.diagnosis.bench import Bench, Damage, Options
from hwc_onnx.diagnosis.examination import Examination
from hwc_onnx.diagnosis.suspect import Suspect, Unread
from hwc_onnx.errors import UsageError
from hwc_onnx.events import Listener, Phase, Step
from hwc_onnx.files import write_atomic
from hwc_onnx.plan import RANGES, RECOVERIES, CompressionPlan, check_plan, check_ratios
from hwc_onnx.quantization.ranges import Method
from hwc_onnx.recovery.layer import Recovery
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.workspace import Model, Opened, open_float_model, plan_from

SCHEMA = 1
DEFAULT = "w8a8"


@dataclass(frozen=True)
class PlanWide:
    """An option of the whole plan: its name and command-line change, and the plan's damage with it."""

    name: str
    change: str
    damage: Damage


@dataclass(frozen=True)
class Why:
    """The layers that lose most under a plan, their causes and remedies, and the plan with the best of each.

    `whole` is the plan's damage as it is applied, `by_layer` with each layer repaired by itself, to which layers and remedies are compared:
    another figure only where the plan's recovery is "sequential".
    """

    plan: CompressionPlan
    plan_name: str
    recovery: str
    whole: Damage
    by_layer: Damage
    suspects: tuple[Suspect, ...]
    layer_count: int
    unread: Unread | None
    planwide: tuple[PlanWide, ...]
    mended: CompressionPlan
    mended_damage: Damage
    mended_energy: float
    mended_options: str
    damage_kind: str
    metric: str
    original: float | None
    samples: int
    real: bool
    accelerator: str
    notes: tuple[str, ...]
    seconds: float

    def save_plan(self, path: str | Path) -> Path:
        """Write the plan with the best remedy of each layer as JSON."""
        write_atomic(Path(path), self.mended.to_json().encode(), "--save-plan")
        return Path(path)

    def to_json(self) -> dict[str, Any]:
        """The content of `why --json`."""
        return {
            "schema": SCHEMA,
            "plan": self.plan_name,
            "settings_sha256": self.plan.settings_digest(),
            "recovery": self.recovery,
            "metric": self.metric,
            "original": self.original,
            "damage_kind": self.damage_kind,
            "samples": self.samples,
            "data": "real" if self.real else "synthetic",
            "accelerator": self.accelerator,
            "whole": self.whole.to_json(),
            "by_layer": self.by_layer.to_json(),
            "layer_count": self.layer_count,
            "layers": [suspect.to_json() for suspect in self.suspects],
            "unread_tensors": None if self.unread is None else self.unread.to_json(),
            "planwide": [{"name": item.name, "change": item.change, **item.damage.to_json()} for item in self.planwide],
            "mended": {
                **self.mended_damage.to_json(),
                "energy": self.mended_energy,
                "options": self.mended_options,
                "plan_sha256": self.mended.digest(),
            },
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


def why(
    model: Model,
    *,
    plan: CompressionPlan | str | Path | None = None,
    spec: str | None = None,
    recovery: str | None = None,
    repairs: Collection[str] | None = None,
    top: int = 10,
    split_seed: int | None = None,
    on_event: Listener | None = None,
    **options: Any,
) -> Why:
    """The layers of a model that lose most accuracy under a plan, with the cause of each and what helps.

    Args:
        model: path or ModelProto of a float model.
        plan: a CompressionPlan or a plan file.
        spec: one setting for all layers instead, such as "w4a8" (default "w8a8"; see `uniform_plan`).
        recovery: as for `apply_plan`; default: the plan's own. Layers of a "sequential" plan are looked at with "full".
        repairs: as for `apply_plan`; channel statistics are never mended here, so that each layer shows what it does.
        top: how many layers to look at; four times as many (at least 40), those of the largest output error, are measured
            alone to find them.
        split_seed: which samples calibrate and judge; default the plan's own.
        on_event: hears the records of `hwc_onnx.events`.
        **options: `data` (synthetic inputs when None), `metric`, `task`, `preset`, `accelerator`, `input_shapes` as for
            `apply_plan`; `samples` of the search split to measure on (512); `cache_dir` for mappings.

    Raises:
        HwcError: the model, the data, the accelerator, the plan or an option is refused.
    """
    started = time.perf_counter()
    if plan is not None and spec is not None:
        raise UsageError("why: plan and spec exclude one another; give one of them")
    if top < 1:
        raise UsageError(f"why: top {top}; at least 1 layer has to be measured")
    try:
        resolved = Options(**options)
    except TypeError as error:
        raise UsageError(f"why: {error}; see hwc_onnx.diagnosis.bench.Options for what can be set") from error
    opened = open_float_model(model, shapes_from_data(model, resolved.data, resolved.input_shapes))
    notes: list[str] = []
    given = None if plan is None else plan_from(plan)
    opened = opened if given is None else opened.under(given.constraints)
    chosen = _chosen(opened, given, spec, notes)
    asked = recovery or chosen.calibration.recovery
    if asked not in RECOVERIES:
        raise UsageError(f"recovery: '{asked}'; choose {', '.join(RECOVERIES)}")
    assert chosen.calibration.ranges in RANGES
    seed = chosen.calibration.split_seed if split_seed is None else split_seed
    bench = Bench(
        model,
        Options(**{**options, "split_seed": seed}),
        on_event,
        recovery=cast(Recovery, "full" if asked == "sequential" else asked),
        ranges=cast(Method, chosen.calibration.ranges),
        lanes=chosen.lanes,
        portable=chosen.portable,
        calibration=chosen.calibration.samples or None,
        opened=opened,
        power_of_two=chosen.calibration.power_of_two,
        dialect=chosen.dialect,
        repairs=chosen.calibration.repairs if repairs is None else tuple(repairs),
        settled=repairs is not None or chosen.calibration.samples > 0,
    )
    for text in notes:
        bench.note(text)
    if asked == "sequential":
        bench.note("the plan's recovery is sequential: its layers are looked at with recovery full, each by itself")
    examination = Examination(bench, chosen, asked == "sequential")
    ranked, compressed = examination.ranked(top)
    if not ranked:
        raise UsageError(
            "why: the plan compresses no layer, so nothing can lose accuracy; give another --plan or --uniform"
        )
    bench.tell(Phase("measure", f"{len(ranked)} of {compressed} layers, on {len(bench.reference)} samples"))
    suspects = []
    for number, (key, relative) in enumerate(ranked):
        bench.tell(Step(number, len(ranked), key))
        suspects.append(examination.suspect(key, relative))
    bench.tell(Phase("plan", "options of the whole plan, and all remedies together"))
    planwide = [PlanWide(*item) for item in examination.planwide()]
    mended, options_text, damage, energy = examination.mended(suspects)
    return Why(
        chosen,
        str(plan) if isinstance(plan, str | Path) else "given" if plan is not None else f"uniform {spec or DEFAULT}",
        asked,
        examination.as_is,
        examination.whole,
        tuple(suspects),
        compressed,
        examination.unread(),
        tuple(planwide),
        mended,
        damage,
        energy,
        options_text,
        bench.kind,
        bench.reference.metric.name,
        bench.reference.value,
        len(bench.reference),
        bench.real,
        bench.cost_model.profile.name,
        tuple(bench.notes),
        time.perf_counter() - started,
    )


def _chosen(
    opened: Opened, found: CompressionPlan | None, spec: str | None, notes: list[str]
) -> CompressionPlan:
    """The plan to look at, checked against the model, without what was recorded of another one."""
    if found is None:
        return uniform(opened.graph, parse_spec(spec or DEFAULT), note=notes.append)
    check_plan(opened.graph, found)
    check_ratios(opened.graph, found)
    if found.source_digest and found.source_digest != opened.loaded.digest:
        notes.append("the plan was made for another file; it fits this model's layers and is looked at as it is")
    return found.model_copy(update={"achieved": {}, "activation_density": {}})
