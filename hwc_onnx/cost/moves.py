"""What one counted word means in bits read and written: the link between a mapping table and an energy table.

Every column of a mapping table becomes a few *moves*: a word of some kind (see `widths`) read from or written to one
memory. Which moves there are depends only on where the tensors are; their widths on the setting. Partial sums are as
wide as the accumulator wherever they are, finished outputs leave at the width of the tensor they are stored as.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from hwc_onnx.cost.access import Floats
from hwc_onnx.cost.hierarchy import Boundary, Hierarchy
from hwc_onnx.cost.setting import Place
from hwc_onnx.cost.types import COMPONENTS
from hwc_onnx.cost.widths import FINISHED, INPUT, KINDS, PLAIN_INPUT, PLAIN_WEIGHT, SUM, WEIGHT, format_at


class Move(NamedTuple):
    """`factor` words of kind `kind` read from (or written to) `memory` for each word counted in `column`."""

    column: int
    memory: int
    write: bool
    factor: float
    kind: int


class Hop(NamedTuple):
    """A word of `column`, less those of `without`, that crosses the array's network at the width of `kind` at `memory`."""

    column: int
    memory: int
    kind: int
    without: int | None = None


@dataclass
class Flow:
    """All moves of a layer, its hops over the array's network, and the columns whose words are unpacked."""

    moves: list[Move] = field(default_factory=list)
    hops: list[Hop] = field(default_factory=list)
    unpacked: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Wiring:
    """A flow as matrices over the width vector of a setting.

    `parts` [components, c, widths] energy of a word of each column by component, `energy` [c, widths] their sum,
    `traffic` [memories, c, widths] words moved at each memory, `unpack` [c] energy of unpacking.
    """

    flow: Flow
    parts: Floats
    energy: Floats
    traffic: Floats
    unpack: Floats

    def word_energies(self, widths: Floats) -> Floats:
        """Energy of one word of each column by component, [c, components]."""
        found: Floats = (self.parts @ widths).T
        found[:, COMPONENTS.index("decode")] += self.unpack
        return found

    def word_energy(self, widths: Floats) -> Floats:
        """Energy of one word of each column, [c]."""
        found: Floats = self.energy @ widths + self.unpack
        return found


def wire(hierarchy: Hierarchy, weighted: bool, place: Place) -> Wiring:
    """The matrices of a layer with (or without) constant weights whose tensors are at `place`."""
    moved = flow(hierarchy, weighted, place)
    profile, memories = hierarchy.profile, len(hierarchy.profile.memories)
    columns = len(hierarchy.columns)
    parts = np.zeros((len(COMPONENTS), columns, KINDS * memories))
    traffic = np.zeros((memories, columns, KINDS * memories))
    unpack = np.zeros(columns)
    for column, memory, write, factor, kind in moved.moves:
        m = profile.memories[memory]
        access = m.write_pj_per_bit if write else m.read_pj_per_bit
        parts[COMPONENTS.index(m.kind), column, kind * memories + memory] += factor * access
        traffic[memory, column, kind * memories + memory] += factor
    noc = parts[COMPONENTS.index("noc")]
    for column, memory, kind, without in moved.hops:
        energy = profile.array.hops.get(hierarchy.columns[column][0].operand, 1.0) * profile.array.hop_pj_per_bit
        noc[column, kind * memories + memory] += energy
        if without is not None:
            noc[without, kind * memories + memory] -= energy
    for column in moved.unpacked:
        unpack[column] += profile.sparsity.decode_pj
    return Wiring(moved, parts, parts.sum(axis=0), traffic, unpack)


def flow(hierarchy: Hierarchy, weighted: bool, place: Place) -> Flow:
    """Moves of every column of the mapping table."""
    found = Flow()
    column = 0
    for boundary in hierarchy.boundaries:
        if boundary.operand == "O":
            _outputs(found, column, boundary, hierarchy, place)
            column += 4
        else:
            _operand(found, column, boundary, hierarchy, weighted, place)
            column += 2
    return found


def _operand(found: Flow, column: int, boundary: Boundary, hierarchy: Hierarchy, weighted: bool, place: Place) -> None:
    """Inputs and weights: read at the parent, written into the child."""
    operand, child, parent = boundary.operand, boundary.child, boundary.parent
    stays = place.input_stays if operand == "I" else place.weight_stays
    if stays and parent == len(hierarchy.profile.memories) - 1:
        # a second activation operand that stays is read where it stays; all others are there already
        if operand == "I" or weighted or hierarchy.home in (-1, child):
            return
        parent = hierarchy.home
    stored, plain = (INPUT, PLAIN_INPUT) if operand == "I" else (WEIGHT, PLAIN_WEIGHT)
    found.moves.append(Move(column + 1, parent, False, 1.0, stored))
    if child >= 0:
        found.moves.append(Move(column, child, True, 1.0, stored))
    if boundary.crosses_array:
        found.hops.append(Hop(column, child, stored) if child >= 0 else Hop(column, parent, plain))
    packed = format_at(hierarchy, parent, operand, weighted) is not None
    if packed and (child < 0 or format_at(hierarchy, child, operand, weighted) is None):
        found.unpacked.append(column + 1)


def _outputs(found: Flow, column: int, boundary: Boundary, hierarchy: Hierarchy, place: Place) -> None:
    """Outputs. Columns: words leaving the child, words arriving at the parent, those that arrive for the first time, and
    those that come back into the child.

    Arriving minus fresh are partial sums that the parent gives back; as many words as are fresh leave for good.
    """
    memories = hierarchy.profile.memories
    child, parent = boundary.child, boundary.parent
    if place.output_stays and parent == len(memories) - 1:
        return
    leaving, arriving, fresh, back = range(column, column + 4)
    if boundary.crosses_array:
        found.hops.append(Hop(leaving, child if child >= 0 else parent, SUM))
    if child >= 0 and memories[child].accumulator:
        found.moves.append(Move(leaving, child, False, 1.0, SUM))
    elif child >= 0:
        # what PEs add up between them leaves unfinished
        _returning(found, leaving, fresh, child, False)
        found.moves.append(Move(fresh, child, False, 1.0, FINISHED))
    if memories[parent].accumulator:
        found.moves.append(Move(arriving, parent, True, 1.0, SUM))
    else:
        _returning(found, arriving, fresh, parent, True)
        found.moves.append(Move(fresh, parent, True, 1.0, FINISHED))
    _returning(found, arriving, fresh, parent, False)
    if child >= 0:
        found.moves.append(Move(back, child, True, 1.0, SUM))
    if boundary.crosses_array:
        # one PE of those that add to a sum takes it, and it goes on from there with what the others add
        found.hops.append(Hop(arriving, child if child >= 0 else parent, SUM, fresh))


def _returning(found: Flow, all_words: int, fresh: int, memory: int, write: bool) -> None:
    """Moves of the partial sums among the words of a column: all but the fresh ones."""
    found.moves.append(Move(all_words, memory, write, 1.0, SUM))
    found.moves.append(Move(fresh, memory, write, -1.0, SUM))
