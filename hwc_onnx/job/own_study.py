"""The problem that a search solves, opened for a study of the caller's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hwc_onnx.accuracy.data_shapes import shapes_from_data
from hwc_onnx.cost.profile import AcceleratorProfile, load_profile
from hwc_onnx.errors import UsageError
from hwc_onnx.events import Listener, silent
from hwc_onnx.job.running import Running
from hwc_onnx.job.sampling import check_names, samples_of
from hwc_onnx.options import Options
from hwc_onnx.plugins import nearest
from hwc_onnx.result import versions
from hwc_onnx.runfolder import RunFolder
from hwc_onnx.search.objective import Objective
from hwc_onnx.workspace import Model, Opened, open_float_model

NOT_OWN = ("objective", "sampler", "policy", "trials", "timeout", "seed", "gate", "polish", "compare_accelerators", "from_run", "jobs")
"""Options of `compress` that are a matter of the study, of what follows a search, or of a search for the least drop."""


@dataclass
class _Opening:
    """What `Running` needs to know of the call."""

    options: Options
    opened: Opened
    profile: AcceleratorProfile
    output: Path
    tell: Listener
    others: list[AcceleratorProfile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@contextmanager
def open_problem(
    model: Model, *, run_dir: str | Path | None = None, on_event: Listener | None = None, **options: Any
) -> Iterator[Objective]:
    """Calibrate, measure the INT8 baseline and fill the damage table, as `compress` does, and hand out what it would search.

    `with open_problem(...) as problem:` owns the run folder, whose cache makes the next call short. The problem goes to
    `StrategySampler` and `PlanObjective` (`hwc_onnx.search.sampler`); `CompressionPlan` of a trial's attribute `plan` goes to
    `hwc_onnx.apply_plan`.

    Args:
        model: path or ModelProto of a float model.
        run_dir: run folder; default `<stem>.problem` in the current folder.
        on_event: hears the records of `hwc_onnx.events`.
        **options: what `compress` takes, apart from what the study decides: not `objective`, `sampler`, `policy`, `trials`, `timeout`, `seed`,
            `gate`, `polish`, `compare_accelerators`, `from_run`, `jobs`.

    Raises:
        UsageError: an option of the study, a folder of something else or in use.
        HwcError: what `compress` refuses before its search.
    """
    shared = _options(options)
    check_names(shared)
    profile = load_profile(shared.accelerator)
    shapes = shapes_from_data(model, shared.data, shared.input_shapes)
    opened = open_float_model(model, shapes).under(shared.constraints)
    place = Path(run_dir) if run_dir is not None else Path.cwd() / f"{opened.name}.problem"
    job = _Opening(replace(shared, input_shapes=shapes), opened, profile, place, silent if on_event is None else on_event)
    data, splits = samples_of(opened, job.options, job.tell)
    plain = job.options.config(opened.loaded.digest, splits.digest, profile.digest())
    config = {name: value for name, value in plain.items() if name not in NOT_OWN}
    with RunFolder(place, config | {"own_study": True, "versions": versions()}) as folder:
        problem = Running(job, folder, data, splits).objective()
        problem.options = config
        yield problem


def _options(given: Mapping[str, Any]) -> Options:
    for name in NOT_OWN:
        if name in given:
            raise UsageError(f"open_problem: {name} cannot be set; give it to the study, or leave it out")
    known = [name for name in Options.__dataclass_fields__ if name not in NOT_OWN]
    for name in given:
        if name not in known:
            raise UsageError(f"open_problem: no option '{name}'{nearest(name, known)}; choose from {', '.join(known)}")
    return Options(**given)
