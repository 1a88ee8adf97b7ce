"""What one counted word means in bits read and written: the link between a mapping table and an energy table.

Every column of a mapping table becomes a few *moves*: so many bits read from or written to one memory. Widths follow
the memory (packing granules, zero-suppressing formats); partial sums are as wide as the accumulator wherever they are,
finished outputs leave at the width of the tensor they are stored as.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hwc_onnx.cost.accelerator import Format, Operand
from hwc_onnx.cost.access import Floats
from hwc_onnx.cost.formats import element_bits
from hwc_onnx.cost.hierarchy import Boundary, Hierarchy
from hwc_onnx.cost.laws import stored_bits
from hwc_onnx.cost.operands import Nest
from hwc_onnx.cost.setting import LayerSetting, Place
from hwc_onnx.cost.types import COMPONENTS


class Move(NamedTuple):
    """`factor` words of `bits` read from (or written to) `memory` for each word counted in `column`."""

    column: int
    memory: int
    write: bool
    factor: float
    bits: float


class Flow(NamedTuple):
    """All moves of a setting, hops (column, factor, bits) over the array's network and unpacked words (column, factor)."""

    moves: list[Move]
    hops: list[tuple[int, float, float]]
    unpacked: list[tuple[int, float]]


def flow(hierarchy: Hierarchy, setting: LayerSetting, place: Place) -> Flow:
    """Moves of every column of the mapping table."""
    found = Flow([], [], [])
    column = 0
    for boundary in hierarchy.boundaries:
        if boundary.operand == "O":
            _outputs(found, column, boundary, hierarchy, setting, place)
            column += 3
        else:
            _operand(found, column, boundary, hierarchy, setting, place)
            column += 2
    return found


def word_energies(hierarchy: Hierarchy, moved: Flow) -> Floats:
    """Energy of one word of each column of the mapping table by component, [c, components]."""
    profile = hierarchy.profile
    weights = np.zeros((len(hierarchy.columns), len(COMPONENTS)))
    for column, memory, write, factor, bits in moved.moves:
        m = profile.memories[memory]
        weights[column, COMPONENTS.index(m.kind)] += (
            factor * bits * (m.write_pj_per_bit if write else m.read_pj_per_bit)
        )
    for column, factor, bits in moved.hops:
        hops = profile.array.hops.get(hierarchy.columns[column][0].operand, 1.0)
        weights[column, COMPONENTS.index("noc")] += factor * bits * hops * profile.array.hop_pj_per_bit
    for column, factor in moved.unpacked:
        weights[column, COMPONENTS.index("decode")] += factor * profile.sparsity.decode_pj
    return weights


def format_at(hierarchy: Hierarchy, memory: int, operand: Operand, weighted: bool) -> Format | None:
    """The zero-suppressing format that a memory uses for an operand."""
    return hierarchy.profile.memories[memory].formats.get("W" if operand == "W" and weighted else "A")


def width_at(hierarchy: Hierarchy, memory: int, operand: Operand, setting: LayerSetting) -> float:
    """Mean bits moved per element of an input or weight at this memory."""
    bits, density = (
        (setting.weight_bits, setting.weight_density)
        if operand == "W"
        else (setting.activation_bits, setting.activation_density)
    )
    stored = stored_bits(bits, hierarchy.profile.memories[memory].pack)
    pattern = setting.nm if operand == "W" else None
    return element_bits(stored, density, format_at(hierarchy, memory, operand, setting.weighted), pattern)


def word_at(hierarchy: Hierarchy, memory: int, operand: Operand, setting: LayerSetting) -> int:
    """Bits read to get one element that is not zero: its stored width, and the count or index that comes with it."""
    bits = setting.weight_bits if operand == "W" else setting.activation_bits
    storage = format_at(hierarchy, memory, operand, setting.weighted)
    extra = storage.run_bits if storage is not None and storage.kind in ("csc", "rlc") else 0
    return stored_bits(bits, hierarchy.profile.memories[memory].pack) + extra


def output_width(hierarchy: Hierarchy, memory: int, setting: LayerSetting) -> float:
    """Mean bits moved per finished output at this memory."""
    stored = stored_bits(setting.out_bits, hierarchy.profile.memories[memory].pack)
    return element_bits(stored, setting.out_density, hierarchy.profile.memories[memory].formats.get("A"))


def _operand(
    found: Flow, column: int, boundary: Boundary, hierarchy: Hierarchy, setting: LayerSetting, place: Place
) -> None:
    """Inputs and weights: read at the parent, written into the child."""
    operand, child, parent = boundary.operand, boundary.child, boundary.parent
    stays = place.input_stays if operand == "I" else place.weight_stays
    last = parent == len(hierarchy.profile.memories) - 1
    if stays and last:
        if operand == "W" and not setting.weighted and hierarchy.home >= 0:
            parent = hierarchy.home
        else:
            return
    wide = width_at(hierarchy, parent, operand, setting)
    found.moves.append(Move(column + 1, parent, False, 1.0, wide))
    inner = width_at(hierarchy, child, operand, setting) if child >= 0 else _plain(hierarchy, parent, operand, setting)
    if child >= 0:
        found.moves.append(Move(column, child, True, 1.0, inner))
    if boundary.crosses_array:
        found.hops.append((column, 1.0, inner))
    packed = format_at(hierarchy, parent, operand, setting.weighted) is not None
    if packed and (child < 0 or format_at(hierarchy, child, operand, setting.weighted) is None):
        found.unpacked.append((column + 1, 1.0))


def _outputs(
    found: Flow, column: int, boundary: Boundary, hierarchy: Hierarchy, setting: LayerSetting, place: Place
) -> None:
    """Outputs. Columns: words leaving the child, words arriving at the parent, and those that arrive for the first time.

    Arriving minus fresh are partial sums that come back; as many words as are fresh leave for good.
    """
    memories = hierarchy.profile.memories
    child, parent = boundary.child, boundary.parent
    last = parent == len(memories) - 1
    if place.output_stays and last:
        return
    leaving, arriving, fresh = column, column + 1, column + 2
    final = setting.out_words / max(1, Nest(setting.dims).words("O"))
    outer = hierarchy.word_bits(parent, "O", 0)
    inner = hierarchy.word_bits(child, "O", 0) if child >= 0 else outer
    if boundary.crosses_array:
        found.hops.append((leaving, 1.0, inner))
    if child >= 0 and memories[child].accumulator:
        found.moves.append(Move(leaving, child, False, 1.0, inner))
    elif child >= 0:
        _returning(found, arriving, fresh, child, False, inner)
        found.moves.append(Move(fresh, child, False, final, output_width(hierarchy, child, setting)))
    if memories[parent].accumulator:
        found.moves.append(Move(arriving, parent, True, 1.0, outer))
    else:
        _returning(found, arriving, fresh, parent, True, outer)
        found.moves.append(Move(fresh, parent, True, final, output_width(hierarchy, parent, setting)))
    _returning(found, arriving, fresh, parent, False, outer)
    if child >= 0:
        _returning(found, arriving, fresh, child, True, inner)


def _returning(found: Flow, arriving: int, fresh: int, memory: int, write: bool, bits: float) -> None:
    """Moves of the partial sums that come back: arriving minus fresh."""
    found.moves.append(Move(arriving, memory, write, 1.0, bits))
    found.moves.append(Move(fresh, memory, write, -1.0, bits))


def _plain(hierarchy: Hierarchy, memory: int, operand: Operand, setting: LayerSetting) -> float:
    """Width of an unpacked word as it leaves `memory`."""
    bits = setting.weight_bits if operand == "W" else setting.activation_bits
    return float(stored_bits(bits, hierarchy.profile.memories[memory].pack))
