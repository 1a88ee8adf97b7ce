"""The verdict: which of the best plans the holdout lets pass, written and checked as a stranger would check it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hwc_onnx.accuracy.metrics import unit_of
from hwc_onnx.accuracy.reference import Reference, make_reference, with_baseline
from hwc_onnx.candidate import Candidate, assemble
from hwc_onnx.errors import VerifyError
from hwc_onnx.events import Note, Phase, Step
from hwc_onnx.export import Written, write_model
from hwc_onnx.files import write_atomic
from hwc_onnx.graph.file_parts import file_parts, growth
from hwc_onnx.graph.loading import load_model
from hwc_onnx.graph.parse import parse
from hwc_onnx.job.polishing import Polishing
from hwc_onnx.job.running import Running
from hwc_onnx.plan import CompressionPlan, with_plan
from hwc_onnx.polish import Polished
from hwc_onnx.quantization.dialects import get_dialect
from hwc_onnx.result import sha256
from hwc_onnx.search.gate import MOST_LOOKS, Gate, Look
from hwc_onnx.search.objective import Objective
from hwc_onnx.search.problem import Choices, Outcome
from hwc_onnx.search.study import SearchResult
from hwc_onnx.verification import verify
from hwc_onnx.workspace import metadata_of

ENERGY_TOLERANCE = 1e-9
"""Relative difference allowed between the plan's energy and that of the written file parsed again."""
VERIFIED_SAMPLES = 256
Kind = Literal["compressed", "baseline_int8", "original"]


@dataclass(frozen=True)
class Verdict:
    """What is to be written and why: its look at the holdout, all looks in order, and the INT8 baseline's look.

    `candidate` is None when the original is returned unchanged; `polished` says what its polish gained, None without one;
    `choices` are those of a compressed plan in the search's units; `trials` are those that the first looks are of.
    """

    kind: Kind
    candidate: Candidate | None
    look: Look
    looks: tuple[Look, ...]
    baseline: Look
    gate: Gate
    search_drop: float
    polished: Polished | None = None
    choices: Choices | None = None
    trials: tuple[int, ...] = ()

    @property
    def plan(self) -> CompressionPlan | None:
        """The plan that is written, None for the original."""
        return self.candidate.plan if self.candidate is not None else None


def judge(run: Running, objective: Objective, found: SearchResult) -> Verdict:
    """Walk from the safest plan to the most aggressive one on the holdout; fall back to INT8, then to the original.

    The INT8 baseline is looked at whatever happens, to be reported; as a fallback after a failed plan its test is not
    part of the fixed sequence, and a note says so.
    """
    finalists = found.goal.finalists(found.history, MOST_LOOKS, objective.start, objective.judging)
    if finalists and found.goal.best(found.history.records) is None:
        nearest = min(max(found.goal.others(record.outcome).values(), default=0.0) for record in finalists)
        if nearest > 0.0:
            told = "no plan of the search keeps all limits: those that may keep the drop limit are judged, from the safest to the one nearest to the others"
            run.tell(Note(f"{told}, {nearest:.1%} above the limit that it misses most", warning=True))
    holdout = make_reference(run.opened.proto, run.splits.holdout, run.reference.metric, task=run.options.task, fewest_heard=1)
    if holdout.note:
        run.tell(Note(holdout.note))
    holdout = with_baseline(holdout, run.baseline.proto)
    expected = [record.outcome for record in finalists]
    gate = _gate(run, holdout, expected)
    run.tell(Note(gate.note))
    candidates = [run.candidate(objective, record) for record in finalists]
    polished: list[Polished | None] = [None] * len(candidates)
    if run.options.polish and candidates:
        polished = _polished(run, candidates)
        stitched = [found.stitched for found in polished if found is not None]
        candidates = [assemble(run.calibrated.proto, run.opened.graph, one) for one in stitched]
        run.tell(Phase("gate", "judge the polished plans"))
    look_at = f"plans at most judged on {len(holdout)} holdout samples"
    run.tell(Step(0, len(candidates), look_at))
    chosen, looks = gate.walk([candidate.proto for candidate in candidates], lambda done: run.tell(Step(done, len(candidates), look_at)))
    baseline = gate.look(run.baseline.proto)
    trials = tuple(record.number for record in finalists[: len(looks)])
    if chosen is not None:
        drop, choices = finalists[chosen].outcome.drop_points, finalists[chosen].choices
        return Verdict(
            "compressed", candidates[chosen], looks[chosen], tuple(looks), baseline, gate, drop, polished[chosen], choices, trials
        )
    why = "no searched plan passed on the holdout" if finalists else f"the search accepted no other plan{_mildest(run, objective, found)}"
    if looks:
        why += f" (the safest one {_beyond(looks[0], gate)})"
    run.tell(Note(f"{why}: the INT8 baseline is judged instead, outside the fixed sequence of tests", warning=True))
    looks.append(baseline)
    if any(low > 0.0 for low, _ in run.options.constraints.ratios.values()):
        run.tell(Note("the INT8 baseline prunes nothing, so it does not keep the lower ratio bounds", warning=True))
    if baseline.passed:
        seed = found.history.find(objective.start)
        drop = seed.outcome.drop_points if seed is not None else 0.0
        return Verdict("baseline_int8", run.baseline, baseline, tuple(looks), baseline, gate, drop, trials=trials)
    run.tell(
        Note(
            f"the INT8 baseline failed on the holdout too ({_beyond(baseline, gate)}): the original is written unchanged",
            warning=True,
        )
    )
    original = gate.look(run.opened.loaded.proto)
    return Verdict("original", None, original, tuple(looks), baseline, gate, 0.0, trials=trials)


def _mildest(run: Running, objective: Objective, found: SearchResult) -> str:
    """Of the plans that the search refused, the one that lost least, in words."""
    others = [record for record in found.history.measured() if not np.array_equal(record.choices, objective.start)]
    if not others:
        return ""
    mildest = min(others, key=lambda record: record.outcome.drop_points).outcome
    unit = unit_of(run.reference.metric.name)
    return (
        f" (of {len(others)} refused the mildest has {100.0 * mildest.energy:.1f}% of INT8's energy and loses {mildest.drop_points:.2f} {unit}, "
        f"limit {run.limit_points:.2f})"
    )


def _beyond(look: Look, gate: Gate) -> str:
    """By how much a look failed, in words."""
    if look.failure is not None:
        return f"did not run: {look.failure}"
    if gate.mode == "upper" and look.upper_bound_points is None:
        return f"has a drop of {look.evaluation.drop_points:.2f} points without an upper bound"
    judged, name = look.evaluation.drop_points, "a drop"
    if gate.mode == "upper" and look.upper_bound_points is not None:
        judged, name = look.upper_bound_points, "an upper bound of the drop"
    return f"has {name} of {judged:.2f} points, {judged - gate.limit_points:.2f} above the limit"


def _gate(run: Running, holdout: Reference, expected: Sequence[Outcome]) -> Gate:
    """How the finalists are judged; without a limit on the drop there is nothing to pass, the drop is only measured."""
    options = run.options
    if math.isfinite(run.limit_points):
        return Gate.choose(options.gate, holdout, run.limit_points, expected=expected, seed=options.split_seed)
    note = "gate: no limit on the drop, so the plan of least drop on the search samples is measured once and written"
    return Gate(holdout, math.inf, "point", 0, note, options.split_seed)


def _polished(run: Running, candidates: list[Candidate]) -> list[Polished | None]:
    """Every candidate polished, before the holdout is opened."""
    run.tell(Phase("polish", f"round layers of few bits of {len(candidates)} plans anew"))
    polishing = Polishing(
        run.opened, run.calibrated, run.splits, run.reference.metric, run.options.task, run.tell
    )
    found: list[Polished | None] = []
    for candidate in candidates:
        made = polishing(candidate.stitched)
        run.tell(Note(made.note()))
        found.append(made)
    return found


def write_output(run: Running, verdict: Verdict) -> Written:
    """Write the chosen model, then check the file.

    Raises:
        VerifyError: the file fails a check, or costs something else than its plan said.
    """
    output = run.job.output
    run.tell(Phase("write", str(output)))
    loaded = run.opened.loaded
    if verdict.candidate is None:
        content = loaded.path.read_bytes() if loaded.path is not None else b""
        if sha256(content) != loaded.digest:  # external data would not be found beside another file
            return write_model(loaded.proto, output)
        write_atomic(output, content)
        return Written(output, sha256(content), len(content), file_parts(loaded.proto, loaded.file_bytes))
    candidate, evaluation = verdict.candidate, verdict.look.evaluation
    cost = run.cost_model.cost(with_plan(run.opened.graph, candidate.plan))
    metric = {"name": evaluation.metric, "before": evaluation.reference, "after": evaluation.value}
    energy = {"accelerator": run.job.profile.name, "total": cost.total, "unit": cost.energy_unit}
    extra = run.provenance() | {"hwc.metric": json.dumps(metric), "hwc.energy": json.dumps(energy)}
    written = write_model(candidate.proto, output, metadata_of(candidate.plan, run.opened, run.preprocess, extra))
    grown = growth(loaded.proto, loaded.file_bytes, written.parts)
    if grown is not None:
        run.tell(Note(grown, warning=True))
    run.tell(Phase("verify", "open the written file at every level and cost it again"))
    report = verify(output, loaded, run.splits.search.take(slice(0, VERIFIED_SAMPLES)), judged=True)
    failed = [check for check in report.checks if not check.passed]
    if failed:
        output.unlink(missing_ok=True)  # nobody is to take it for a result
        raise VerifyError(
            f"{output}: {failed[0].name}: {failed[0].found}; the best file of the search is kept in {run.folder.path}; "
            "please report this"
        )
    measured = get_dialect(candidate.plan.dialect).measured
    if measured:
        seen = [check.found for check in report.checks if check.name.startswith("dialect ")]
        run.tell(Note(f"dialect {candidate.plan.dialect}: {'; '.join([measured, *seen])}"))
    again = run.cost_model.cost(parse(load_model(output).proto, run.options.input_shapes)).total
    if abs(again - cost.total) > ENERGY_TOLERANCE * cost.total:
        raise VerifyError(
            f"{output}: the file costs {again:.9g}, its plan {cost.total:.9g} {cost.energy_unit}; please report this, the "
            f"plan is kept in {run.folder.path}"
        )
    run.folder.write("plan.json", candidate.plan.to_json())
    return written
