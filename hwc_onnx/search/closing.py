"""The last evaluations: cheaper steps towards the limit, so that the final gate has something to fall back to.

The search drives towards the limit of its own samples. Whether a plan there also keeps the limit on the holdout is a
matter of luck; plans at a fraction of the allowed drop keep it nearly always. A few evaluations are kept back for the
best plan of each fraction.
"""

from __future__ import annotations

from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.history import History
from hwc_onnx.search.model import Model
from hwc_onnx.search.problem import Choices, Problem
from hwc_onnx.search.seeds import derived, middle_starts
from hwc_onnx.search.space import Space
from hwc_onnx.search.surrogate import DamageTable

CLOSING = "closing"
"""Origin of these trials."""
FRACTIONS = (0.2, 0.4, 0.6, 0.8)
"""Of the drop at which a plan is just accepted (assumed)."""


def reserved(trials: int) -> int:
    """Evaluations kept back of a budget: a tenth, as many as there are fractions at most."""
    return min(len(FRACTIONS), trials // 10)


def closing_plans(
    problem: Problem, space: Space, decoder: Decoder, table: DamageTable, history: History, seed: int, count: int
) -> list[Choices]:
    """Up to `count` plans that are still to be measured, the safest first.

    They follow from the trials before the closing ones at the end of the record, so an interrupted closing is taken up
    where it stopped, and a study that was extended since closes anew.
    """
    searched = len(history.records)
    while searched and history.records[searched - 1].origin == CLOSING:
        searched -= 1
    before = History(space, problem.limit_points)
    for record in history.records[:searched]:
        before.append(record)
    if not count or before.best is None:
        return []
    model = Model(problem, table, before, derived(seed, "closing", len(before)))
    starts = [before.best.choices, *middle_starts(space, problem)]
    wanted = FRACTIONS[:: max(1, len(FRACTIONS) // count)][:count]
    plans = {
        plan.tobytes(): plan
        for share in wanted
        if history.find(plan := model.decode(decoder, share * model.accepted_drop(), starts).choices) is None
    }
    return list(plans.values())
