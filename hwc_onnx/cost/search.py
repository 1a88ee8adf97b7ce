"""Mapping search: from a layer shape and a profile to its mapping table.

Four stages keep it short: what the PEs hold, judged by what happens below the buffers (`candidates.inner_nests`); every
arrangement of the loops outside around the best of those (`candidates.outer_nests`); a local search from the best nests
(`refine`); and the winner of every scenario (`select`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import ceil

import numpy as np

from hwc_onnx.cost.accelerator import Operand
from hwc_onnx.cost.access import Floats, Ints
from hwc_onnx.cost.candidates import UNLIMITED, Loops, Rooms, inner_nests, joined, nothing_inside, outer_nests
from hwc_onnx.cost.counting import Counter
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.mapping import MappingTable
from hwc_onnx.cost.operands import OPERANDS, Nest, dependence
from hwc_onnx.cost.refine import Judge, refine
from hwc_onnx.cost.rules import unrolls_allowed
from hwc_onnx.cost.scenarios import Scenarios, scenarios
from hwc_onnx.cost.select import select
from hwc_onnx.cost.unrolls import one_more_pass, unroll_candidates


@dataclass(frozen=True)
class Effort:
    """How wide the search is.

    `unrolls` kept, `sizes` tried for the free size inside the PEs, `survivors` for each pair of widths and stationary
    operand, `passes` that the loops outside are cut into, `kept` nests for each anchor, `rounds` and `ways` of the local
    search, `free_steps` halvings of the home memory.
    """

    unrolls: int = 64
    sizes: int = 10
    survivors: int = 20
    passes: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 16)
    kept: int = 40
    rounds: int = 6
    ways: int = 8
    free_steps: int = 5


def search(nest: Nest, hierarchy: Hierarchy, effort: Effort | None = None) -> MappingTable:
    """The mapping table of a layer shape (deterministic); empty if nothing fits.

    Where no mapping of a full array fits the memories at every width, smaller parts of the array are tried too.
    """
    effort = effort or Effort()
    full = unroll_candidates(nest, hierarchy.profile, effort.unrolls)
    table = _search(nest, hierarchy, effort, full)
    while not _serves_widest(table, hierarchy) and (full > 1).any():
        full = np.unique(-(-full // 2), axis=0)
        table = table.with_rows_of(_search(nest, hierarchy, effort, full))
    return table


def _serves_widest(table: MappingTable, hierarchy: Hierarchy) -> bool:
    """Whether some row fits all memories with the widest words searched for."""
    widest = max(scenarios(hierarchy).widths)
    room = np.zeros((len(table), len(hierarchy.profile.memories)))
    for column, (memory, operand) in enumerate(hierarchy.held):
        room[:, memory] += table.needs[:, column] * hierarchy.room_bits(memory, operand, widest)
    limits = [hierarchy.capacity_bits(i) for i in range(room.shape[1])]
    return bool((room <= limits).all(axis=1).any())


def _search(nest: Nest, hierarchy: Hierarchy, effort: Effort, full: Ints) -> MappingTable:
    """The search over these unrolls, and those that take one more pass."""
    cases = scenarios(hierarchy)
    rules = hierarchy.profile.mapping
    choice = _choice_inside(hierarchy, cases)
    spare = unrolls_allowed(rules, nest, one_more_pass(full, nest.sizes), full) if choice else full[:0]
    unrolls = np.concatenate([full, spare[: effort.unrolls - len(full)]])
    trips = -(-np.array(nest.sizes) // unrolls.prod(axis=1))
    judge = Judge(hierarchy, nest, unrolls, cases)
    prefix = _stage_one(judge, trips, effort) if choice else nothing_inside(len(unrolls))
    if not len(prefix.which):  # no tile of some operand fits the PEs
        return select(judge.counter(prefix), cases, effort.free_steps)
    pool = judge.allowed(_distinct(outer_nests(nest, prefix, trips, _cuts(nest, hierarchy, cases, effort))))
    pool = pool.take(best_of_each(judge.energies(pool), effort.kept))
    if choice and len(pool.which):
        used, which = np.unique(pool.which, return_inverse=True)
        idle = unrolls_allowed(rules, nest, one_more_pass(unrolls[used[used < len(full)]], nest.sizes), full)
        judge = Judge(hierarchy, nest, np.concatenate([unrolls[used], idle]), cases)
        pool = pool._replace(which=which.reshape(-1))
        pool = joined([pool, refine(judge, pool, ceil(effort.rounds / len(cases.widths)), effort.ways)])
    return select(judge.counter(pool), cases, effort.free_steps)


def _cuts(nest: Nest, hierarchy: Hierarchy, cases: Scenarios, effort: Effort) -> tuple[int, ...]:
    """Into how many passes blocks are cut outside the PEs: `effort.passes`, and what makes a large tensor fit a buffer."""
    cuts = set(effort.passes)
    for index, memory in enumerate(hierarchy.profile.memories[:-1]):
        for operand in memory.operands if is_buffer(hierarchy, index) else ():
            words = capacity(hierarchy, index, operand, max(cases.widths))
            least = ceil(nest.words(operand) / max(1.0, words))
            if least > max(effort.passes):
                cuts |= {least, 2 * least}
    return tuple(sorted(cuts))


def best_of_each(energies: Floats, count: int) -> Ints:
    """Rows among the `count` best of any scenario (energies [scenarios, n]), those that fit nowhere left out."""
    count = min(count, energies.shape[1])
    rows = np.argpartition(energies, count - 1, axis=1)[:, :count]
    fits = np.isfinite(np.take_along_axis(energies, rows, axis=1))
    found: Ints = np.unique(rows[fits])
    return found


def _choice_inside(hierarchy: Hierarchy, cases: Scenarios) -> bool:
    """Whether PEs hold more than a word: otherwise the loops outside alone decide what is stationary."""
    for operand in OPERANDS:
        index = next(i for i, m in enumerate(hierarchy.profile.memories) if operand in m.operands)
        if not is_buffer(hierarchy, index) and capacity(hierarchy, index, operand, min(cases.widths)) > 1:
            return True
    return False


def _stage_one(judge: Judge, trips: Ints, effort: Effort) -> Loops:
    """The best loops inside the PEs, judged by what happens below the buffers."""
    hierarchy, nest, unrolls, cases = judge.hierarchy, judge.nest, judge.unrolls, judge.cases
    rooms = {bits: _rooms(hierarchy, unrolls, bits) for bits in cases.widths}
    parts, completed = [], []
    for room in {tuple(part.tobytes() for part in each): each for each in rooms.values()}.values():
        inner, all_loops = inner_nests(nest, trips, room, effort.sizes)
        parts.append(inner)
        completed.append(all_loops)
    prefix, whole = joined(parts), joined(completed)
    keep = distinct_rows(whole)
    keep = keep[judge.allowed_rows(whole.take(keep))]
    total = _inner_energy(judge.counter(whole.take(keep)), cases)
    return prefix.take(keep[best_of_each(total, max(2, effort.survivors // len(cases.widths) ** 2))])


def _rooms(hierarchy: Hierarchy, unrolls: Ints, bits: int) -> Rooms:
    """Words of each operand that fit beside each PE's work, for every unroll; memories outside the PEs do not limit."""
    found = {}
    for operand in OPERANDS:
        index = next(i for i, m in enumerate(hierarchy.profile.memories) if operand in m.operands)
        room = np.full(len(unrolls), UNLIMITED)
        if not is_buffer(hierarchy, index):
            spread = unrolls[:, list(hierarchy.spans[index])].prod(axis=1)
            follows = dependence(operand, False).plain
            room = int(capacity(hierarchy, index, operand, bits)) // spread[:, list(follows)].prod(axis=1)
        found[operand] = np.maximum(1, room)
    return Rooms(**found)


def _inner_energy(counter: Counter, cases: Scenarios) -> Floats:
    """Energy of what happens below the buffers, [pairs of widths, n]; infinite where nothing fits."""
    hierarchy = counter.hierarchy
    energy: dict[Operand, list[Floats]] = {}
    for operand in OPERANDS:
        inner = [b.child for b in hierarchy.boundaries if b.operand == operand and b.child >= 0]
        inner = [memory for memory in inner if not is_buffer(hierarchy, memory)]
        capacities = [[capacity(hierarchy, m, operand, bits) for m in inner] for bits in cases.widths]
        options = counter.options(operand, np.array(capacities).reshape(len(cases.widths), len(inner)))
        energy[operand] = [
            np.where(options.valid[i], options.columns[i] @ cases.energies[operand, bits, 1.0, False][: options.columns.shape[2]], np.inf)
            for i, bits in enumerate(cases.widths)
        ]  # fmt: skip
    return np.stack([
        energy["I"][a] + energy["W"][w] + energy["O"][a] + cases.besides(bits_a, bits_w, counter)
        for (a, bits_a), (w, bits_w) in itertools.product(enumerate(cases.widths), enumerate(cases.widths))
    ])  # fmt: skip


def capacity(hierarchy: Hierarchy, memory: int, operand: Operand, bits: int) -> float:
    """Words of `operand` at `bits` that `memory` could hold alone."""
    return hierarchy.capacity_bits(memory) // hierarchy.room_bits(memory, operand, bits)


def is_buffer(hierarchy: Hierarchy, memory: int) -> bool:
    """Whether stage one leaves this memory out: it serves the whole array and is not an accumulator."""
    return bool(hierarchy.spans[memory]) and not hierarchy.profile.memories[memory].accumulator


def _distinct(nests: Loops) -> Loops:
    return nests.take(distinct_rows(nests))


def distinct_rows(nests: Loops) -> Ints:
    """Index of one of each group of nests that differ only in absent loops.

    A nest is folded into one 64-bit number, absent loops skipped; two different nests meet with a chance of about
    2^-40 at these sizes, and then one candidate of thousands is not looked at.
    """
    which, dims, sizes = nests
    odd = np.uint64(0xD6E8FEB86659FD93)
    code = (which.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    for column in range(dims.shape[1]):
        present = sizes[:, column] > 1
        if present.any():
            mark = (sizes[:, column] * 8 + dims[:, column]).astype(np.uint64)
            mixed = (code ^ mark) * odd
            mixed ^= mixed >> np.uint64(31)
            code = np.where(present, mixed, code)
    kept: Ints = np.sort(np.unique(code, return_index=True)[1])
    return kept
