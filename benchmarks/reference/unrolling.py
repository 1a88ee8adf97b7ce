"""Which loops to spread over the array: candidates for a tool that does not find good ones by itself.

On one axis, dimensions share the units: FY 3 x C 4 on 12 rows. Of all products that fit, those are kept that no other
product over the same dimensions contains, and of the products that divide the layer exactly those that no other exact
one contains. Two axes make a pair, and the pairs are kept apart by *kind*: the dimensions they use. Each kind is a
queue, the fullest array first, because the best energy is often not on the fullest array of all, but seldom far down
its own queue. Kinds that leave most of the array idle are not tried.
"""

from __future__ import annotations

from itertools import product
from math import ceil

from architectures import Architecture, Axis
from cases import Case

Unrolling = dict[str, int]
Pair = tuple[Unrolling, Unrolling]
Kind = tuple[tuple[str, ...], tuple[str, ...]]

IDLE = 0.2  # a kind whose fullest array is below this share of the fullest of all is not tried


def factors(size: int, units: int) -> list[int]:
    """Unrolls of a loop over at most so many units, one for each number of passes that it can leave: 9 -> 1 2 3 5 9."""
    passes = {ceil(size / unroll) for unroll in range(1, min(size, units) + 1)}
    return sorted({ceil(size / count) for count in passes})


def effective(size: int, unroll: int) -> float:
    """Units in use on average: 9 on 5 units takes two passes, 4.5 units each."""
    return size / ceil(size / unroll)


def axis_unrollings(case: Case, axis: Axis) -> list[Unrolling]:
    """All unrollings of an axis that no other one over the same dimensions contains."""
    found: list[Unrolling] = [{}]
    for dim in axis.dims:
        size = case.sizes[dim]
        for unrolling in list(found):
            used = 1
            for factor in unrolling.values():
                used *= factor
            found.extend({**unrolling, dim: factor} for factor in factors(size, axis.size // used) if factor > 1)
    exact = [one for one in found if all(case.sizes[dim] % factor == 0 for dim, factor in one.items())]
    largest = [one for one in found if not any(_contains(other, one) for other in found)]
    return largest + [one for one in exact if one not in largest and not any(_contains(other, one) for other in exact)]


def _contains(other: Unrolling, one: Unrolling) -> bool:
    return other != one and other.keys() == one.keys() and all(other[dim] >= one[dim] for dim in one)


def utilisation(case: Case, pair: Pair, architecture: Architecture) -> float:
    """Share of the array that works, on average."""
    used = 1.0
    for unrolling in pair:
        for dim, factor in unrolling.items():
            used *= effective(case.sizes[dim], factor)
    return used / (architecture.rows.size * architecture.columns.size)


def candidates(case: Case, architecture: Architecture) -> dict[Kind, list[Pair]]:
    """Pairs of (rows, columns) by kind, the fullest array first; kinds by their fullest array.

    A dimension that is on both axes must be divided by the product exactly: what the tools do with a remainder on two
    axes differs.
    """
    kinds: dict[Kind, list[Pair]] = {}
    for rows, columns in product(axis_unrollings(case, architecture.rows), axis_unrollings(case, architecture.columns)):
        if all(case.sizes[dim] % (rows[dim] * columns[dim]) == 0 for dim in rows.keys() & columns.keys()):
            kinds.setdefault((tuple(sorted(rows)), tuple(sorted(columns))), []).append((rows, columns))
    for pairs in kinds.values():
        pairs.sort(key=lambda pair: -utilisation(case, pair, architecture))
    fullest = {kind: utilisation(case, pairs[0], architecture) for kind, pairs in kinds.items()}
    threshold = IDLE * max(fullest.values())
    return {kind: kinds[kind] for kind in sorted(kinds, key=lambda kind: -fullest[kind]) if fullest[kind] >= threshold}
