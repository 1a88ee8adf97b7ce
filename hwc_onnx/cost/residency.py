"""Which tensors stay on chip between layers: the choice with the least energy, found exactly.

A tensor that stays occupies the home memory from the step that makes it to the last one that reads it; what is left
is the working room of each step. Only the tensors alive at a step interact, so a dynamic programme over the steps
whose state is the set of staying tensors finds the best choice. Fewer bits make every state cheaper and allow more
states, so the total never rises when bits fall.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hwc_onnx.cost.schedule import Schedule
from hwc_onnx.cost.setting import FREE_STEPS

StepEnergy = Callable[[int, frozenset[int], int], float]
"""Energy of a step given the staying tensors alive in it and the free sixteenths of the home memory."""

MAX_STATES = 64
"""States kept per step; a graph with more than six undecided tensors alive at once keeps the cheapest ones."""


@dataclass(frozen=True)
class Residency:
    """The staying storages of each step, the free room, and the energy of all steps together."""

    staying: tuple[frozenset[int], ...]
    free: tuple[int, ...]
    energy: float


@dataclass(frozen=True)
class _State:
    """The cheapest way to a set of staying tensors: energy so far, the step before, and this step's tensors and room."""

    spent: float
    before: _State | None
    alive: frozenset[int] = frozenset()
    room: int = 0


def choose(plan: Schedule, sizes: Sequence[int], capacity: int, energy: StepEnergy) -> Residency:
    """The best set of staying tensors.

    Args:
        plan: steps and lifetimes.
        sizes: bits of each storage in the home memory.
        capacity: bits of the home memory (0: nothing can stay).
        energy: energy of one step.
    """
    easy = _everything(plan, sizes, capacity, energy)
    return easy if easy is not None else _search(plan, sizes, capacity, energy)


def free_steps(capacity: int, used: int) -> int:
    """Whole sixteenths of the home memory left beside `used` bits."""
    return FREE_STEPS if capacity == 0 else (capacity - used) * FREE_STEPS // capacity


def _everything(plan: Schedule, sizes: Sequence[int], capacity: int, energy: StepEnergy) -> Residency | None:
    """All tensors stay, if they fit and the room left costs no step anything: then nothing can be better."""
    if capacity == 0:
        return None
    alive: frozenset[int] = frozenset()
    used, total = 0, 0.0
    staying, free = [], []
    for index, step in enumerate(plan.steps):
        if step.born:
            alive = alive.union(step.born)
            used += sum(sizes[i] for i in step.born)
            if used > capacity:
                return None
        room = free_steps(capacity, used)
        cost = energy(index, alive, room)
        if room < FREE_STEPS and cost > energy(index, alive, FREE_STEPS):
            return None
        staying.append(alive)
        free.append(room)
        total += cost
        if step.dies:
            alive = alive.difference(step.dies)
            used -= sum(sizes[i] for i in step.dies)
    return Residency(tuple(staying), tuple(free), total)


def _search(plan: Schedule, sizes: Sequence[int], capacity: int, energy: StepEnergy) -> Residency:
    states: dict[frozenset[int], _State] = {frozenset(): _State(0.0, None)}
    for index, step in enumerate(plan.steps):
        births = [i for i in step.born if 0 < sizes[i] <= capacity]
        choices = [
            frozenset(births[j] for j in range(len(births)) if mask >> j & 1) for mask in range(1 << len(births))
        ]
        after: dict[frozenset[int], _State] = {}
        for carried, before in states.items():
            for chosen in choices:
                alive = carried | chosen
                used = sum(sizes[i] for i in alive)
                if used > capacity:
                    continue
                room = free_steps(capacity, used)
                total = before.spent + energy(index, alive, room)
                left = alive.difference(step.dies)
                known = after.get(left)
                if known is None or total < known.spent:
                    after[left] = _State(total, before, alive, room)
        if len(after) > MAX_STATES:
            after = dict(sorted(after.items(), key=lambda item: item[1].spent)[:MAX_STATES])
        states = after
    last = min(states.values(), key=lambda state: state.spent)
    staying: list[frozenset[int]] = []
    free: list[int] = []
    state = last
    while state.before is not None:
        staying.append(state.alive)
        free.append(state.room)
        state = state.before
    return Residency(tuple(staying[::-1]), tuple(free[::-1]), last.spent)
