"""The fronts of a search, of accepted plans and of all, each point as a plan that `apply` turns into a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hwc_onnx.errors import UsageError
from hwc_onnx.job.running import Running
from hwc_onnx.search.history import History, Record
from hwc_onnx.search.objective import Objective

HEAD = ("energy_vs_int8", "drop_points", "accepted", "origin", "plan", "holdout")


def front_of(records: Sequence[Record]) -> list[Record]:
    """Those that no other beats in both, least energy first."""
    front: list[Record] = []
    least = math.inf
    for record in sorted(records, key=lambda record: (record.outcome.energy, record.outcome.drop_points)):
        if record.outcome.drop_points < least:
            least = record.outcome.drop_points
            front.append(record)
    return front


def write_front(
    run: Running, objective: Objective, history: History, passed: Mapping[int, bool]
) -> tuple[tuple[float, float], ...]:
    """Write pareto.csv and a plan for each of its rows (pareto/<trial>.json); `passed` has the trials that the gate looked at.

    The rows are the front of the accepted plans, whose (energy, drop) is returned, and that of all plans that were
    measured on every search sample: what another limit would allow.
    """
    folder = run.folder.path / "pareto"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made ({error.strerror}); move what stands there, or choose --run-dir") from error
    complete = [record for record in history.measured() if record.outcome.complete]
    accepted_ones = front_of([record for record in complete if record.outcome.accepted(history.limit_points)])
    rows = [HEAD]
    for record in sorted(
        {one.number: one for one in (*front_of(complete), *accepted_ones)}.values(), key=lambda one: one.outcome.energy
    ):
        outcome, name = record.outcome, f"pareto/{record.number:04d}.json"
        run.folder.write(name, run.plan(objective, record).to_json())
        accepted = "true" if outcome.accepted(history.limit_points) else "false"
        judged = {True: "passed", False: "failed", None: ""}[passed.get(record.number)]
        rows.append((repr(outcome.energy), repr(outcome.drop_points), accepted, record.origin, name, judged))
    for stale in {path.name for path in folder.glob("*.json")} - {row[-2].rpartition("/")[2] for row in rows}:
        (folder / stale).unlink(missing_ok=True)
    run.folder.write("pareto.csv", "\n".join(",".join(row) for row in rows) + "\n")
    return tuple((one.outcome.energy, one.outcome.drop_points) for one in accepted_ones)
