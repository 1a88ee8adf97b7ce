"""The last evaluations: plans refitted layer after layer, at graded damages up to the limit.

Refitting a plan to its own compressed inputs (rebuild.py) takes too long for every candidate and lowers the damage of
most (benchmarks/refit.py), so a refitted plan may be more aggressive than the best one of the search. A few evaluations
are kept back for it: the solver aims at the damage that is expected to be right once refitted, and the ratio of damage
after to damage before is learned on the way. They are steps on a ladder, because whether a plan at the limit of the
search samples also keeps the limit on the holdout is a matter of luck: the gate climbs it from the safest step. The last
ones go where a further step is worth most (ladder.py).

A strategy without a solver gets none in the closing either: it refits the cheapest of the plans that it proposed itself which are expected to
do no more than the damage aimed at. Else the solver's last plans would count as what the strategy found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.history import History, Record
from hwc_onnx.search.ladder import Ladder
from hwc_onnx.search.model import Model
from hwc_onnx.search.problem import Choices, Problem
from hwc_onnx.search.seeds import derived, middle_starts
from hwc_onnx.search.space import Space
from hwc_onnx.search.surrogate import DamageTable

SHARES = (0.6, 0.9)
"""Damages aimed at first, as shares of the damage that the gate is expected to let pass (assumed)."""
BETWEEN = 7
"""Steps that go where they are worth most."""
REFITTED = 0.66
"""Damage after refitting over damage before, until measured: the median that benchmarks/refit.py prints."""
SEED = "seed"
"""Origin of the plans that a search begins with: the solver's."""
ABOUT = 0.5
"""Logarithm of a ratio of damages that are about the same."""


def reserved(trials: int) -> int:
    """Evaluations kept back of a budget: a tenth, but no more than there are steps."""
    return min(len(SHARES) + BETWEEN, trials // 10)


def reserved_images(plans: int, problem: Problem, images: int) -> int:
    """Images kept back of a budget in images for so many plans: what refitting and measuring them takes, no more than a quarter of all."""
    return min(plans * (problem.search_size + problem.refit_forwards), images // 4)


def closing_plan(
    problem: Problem, space: Space, decoder: Decoder, table: DamageTable, history: History, seed: int, solved: bool = True
) -> Choices | None:
    """The next plan to refit and measure, None after the last step or where the search accepted nothing.

    It follows from the record alone, so an interrupted closing is taken up where it stopped. Where it is not `solved`, it is one of the
    plans that were measured.
    """
    searched, done = history.searched(), history.closing()
    ladder = Ladder.of(history, judging=getattr(problem, "judging", None))
    if searched.best is None:
        return None
    if not solved:
        return _own_plan(searched, done, _aims(len(done), ladder))
    model = Model(problem, table, searched, derived(seed, "closing", len(searched)))
    starts = [searched.best.choices, *middle_starts(space, problem)]

    def predicted(record: Record) -> float:
        return float(model.forecast(record.choices[None, :]).log_damage[0])

    for aim in _aims(len(done), ladder):
        ratio = _ratio(predicted, done, aim) if problem.refits else 1.0
        plan = model.decode_damage(decoder, aim / ratio, starts).choices
        if not any(np.array_equal(plan, record.choices) for record in done):
            return plan
    return None


def _own_plan(searched: History, done: Sequence[Record], aims: Sequence[float]) -> Choices | None:
    """The cheapest plan that the strategy proposed for the first aim that one can meet and that was not refitted yet; those that keep
    all other limits first.
    """
    known = {
        record.choices.tobytes(): record
        for record in searched.measured()
        if record.outcome.damage > 0.0 and record.origin != SEED
    }
    done = [record for record in done if record.choices.tobytes() in known]
    left = [record for key, record in known.items() if key not in {one.choices.tobytes() for one in done}]

    def measured(record: Record) -> float:
        return float(np.log(known[record.choices.tobytes()].outcome.damage))

    for aim in aims:
        ratio = _ratio(measured, done, aim)
        fitting = [record for record in left if record.outcome.damage * ratio <= aim]
        if fitting:
            return min(fitting, key=lambda record: (max(record.outcome.limits.values(), default=0.0) > 0.0, record.outcome.energy)).choices
    return None


def _aims(done: int, ladder: Ladder) -> list[float]:
    """Damages to aim at next, the first wish first: what is left of the shares, then the steps that are missing."""
    if done >= len(SHARES) + BETWEEN:
        return []
    return [share * ladder.belief.expected for share in SHARES[done:]] + ladder.missing()


def _ratio(before: Callable[[Record], float], done: Sequence[Record], aim: float) -> float:
    """Damage of the refitted plans so far over that `before`, given as a logarithm, most of all of those about the damage `aim`, drawn
    to `REFITTED` as if by one more.
    """
    logs, weights = [np.log(REFITTED)], [1.0]
    for record in done:
        if record.outcome.failure is None and record.outcome.damage > 0.0:
            logs.append(np.log(record.outcome.damage) - before(record))
            weights.append(float(np.exp(-(((np.log(record.outcome.damage) - np.log(aim)) / ABOUT) ** 2) / 2)))
    return float(np.exp(np.average(logs, weights=weights)))
