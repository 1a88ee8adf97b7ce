"""A mapping that somebody states: spatial unroll, temporal nest, and what each memory holds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any

import numpy as np

from hwc_onnx.cost.accelerator import Operand, Pinned
from hwc_onnx.cost.access import Floats, Ints
from hwc_onnx.cost.clip import counted
from hwc_onnx.cost.counting import Counter
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.mapping import MappingTable
from hwc_onnx.cost.operands import DIMS, INDEX, OPERANDS, Nest
from hwc_onnx.cost.placing import SHARES
from hwc_onnx.errors import MappingError
from hwc_onnx.plugins import nearest

Loops = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class LayerMapping:
    """How a layer runs on an array.

    Attributes:
        spatial: PEs over which each loop dimension is spread, by array axis: `{"rows": {"C": 4, "FY": 3}}`.
        temporal: (dimension, trips) of the loops in time, outermost first.
        inside: operand and memory: how many of the innermost loops its tile is held for. An operand that is left out
            is held as deep as it fits, memories being shared in the cheapest way.
    """

    spatial: Mapping[str, Mapping[str, int]]
    temporal: Loops
    inside: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @classmethod
    def pinned(cls, pin: Pinned) -> LayerMapping:
        """The mapping that an accelerator file gives."""
        spatial: dict[str, dict[str, int]] = {axis: {str(d): n for d, n in dims.items()} for axis, dims in pin.spatial.items()}
        return cls(spatial, tuple(pin.temporal), {str(o): dict(held) for o, held in pin.inside.items()})

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> LayerMapping:
        """The mapping of a node as `profile --json` writes it, placements included.

        Raises:
            MappingError: a part is missing or malformed.
        """
        if not isinstance(content, Mapping):
            raise MappingError(
                f"mapping: found {type(content).__name__}, expected a LayerMapping or the mapping of a node in `profile --json`"
            )
        try:
            return cls._of(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            missing = [name for name in ("spatial", "temporal") if name not in content]
            found = f"no '{missing[0]}'" if missing else f"{error}"
            raise MappingError(
                f"mapping: {found}; expected spatial {{axis: {{dimension: PEs}}}}, temporal [[dimension, trips], ...] from the "
                "outermost loop, and optionally tiles [{memory, operand, loops}]"
            ) from error

    @classmethod
    def _of(cls, content: Mapping[str, Any]) -> LayerMapping:
        inside: dict[str, dict[str, int]] = {}
        for tile in content.get("tiles", ()):
            inside.setdefault(tile["operand"], {})[tile["memory"]] = int(tile["loops"])
        temporal = tuple((str(d), int(trips)) for d, trips in content["temporal"])
        return cls({axis: dict(dims) for axis, dims in content["spatial"].items()}, temporal, inside)


def stated_table(mapping: LayerMapping, nest: Nest, hierarchy: Hierarchy, bits: tuple[int, int]) -> MappingTable:
    """The table of one stated mapping: a row for each way to place the operands whose placement is left open.

    Args:
        mapping: what is stated.
        nest: the layer.
        hierarchy: the accelerator.
        bits: widths of inputs (and outputs) and of weights: they decide how much fits.

    Raises:
        MappingError: a name or size that does not exist, a layer that is not covered, a tile that does not fit.
    """
    unknown = [operand for operand in mapping.inside if operand not in OPERANDS]
    if unknown:
        raise MappingError(f"mapping, inside: no operand '{unknown[0]}'; choose from {', '.join(OPERANDS)}")
    unroll = _unroll(mapping.spatial, hierarchy)
    loops = tuple(reversed(tuple((_dimension(d, "temporal"), _whole(n, f"temporal {d}")) for d, n in mapping.temporal)))
    _covers(unroll, loops, nest)
    dims = np.array([[d for d, _ in loops]], dtype=np.int64).reshape(1, -1)
    trips = np.array([[n for _, n in loops]], dtype=np.int64).reshape(1, -1)
    counter = Counter(hierarchy, nest, unroll[None], np.zeros(1, dtype=np.int64), dims, trips)
    choices = [_placements(operand, mapping, counter, loops, bits) for operand in OPERANDS]
    rows = [np.concatenate(parts) for parts in itertools.product(*choices)]
    inside: Ints = np.unique(np.array(rows, dtype=np.int64).reshape(len(rows), len(hierarchy.held)), axis=0)
    unrolls, dims, trips = (np.repeat(array, len(inside), axis=0) for array in (unroll[None], dims, trips))
    return counted(nest, hierarchy, unrolls, dims, trips, inside)


def _unroll(spatial: Mapping[str, Mapping[str, int]], hierarchy: Hierarchy) -> Ints:
    axes = {axis.name: axis for axis in hierarchy.profile.array.axes}
    made = np.ones((len(axes), len(DIMS)), dtype=np.int64)
    for number, name in enumerate(axes):
        for d, n in spatial.get(name, {}).items():
            index = _dimension(d, f"spatial.{name}")
            allowed = axes[name].dims
            if n != 1 and d not in allowed:
                raise MappingError(
                    f"mapping, spatial.{name}: {d} cannot be spread over this axis; allowed: {', '.join(allowed)}"
                )
            made[number, index] = _whole(n, f"spatial.{name}.{d}")
        used = int(made[number].prod())
        if used > axes[name].size:
            raise MappingError(f"mapping, spatial.{name}: takes {used} PEs, the axis has {axes[name].size}; unroll less")
    unknown = [name for name in spatial if name not in axes]
    if unknown:
        raise MappingError(
            f"mapping, spatial: no array axis '{unknown[0]}'{nearest(unknown[0], list(axes))}; "
            f"'{hierarchy.profile.name}' has {', '.join(axes)}: choose among them"
        )
    return made


def _covers(unroll: Ints, loops: Sequence[tuple[int, int]], nest: Nest) -> None:
    """Every iteration of the layer runs once, and no loop goes round for nothing."""
    for d, size in enumerate(nest.sizes):
        pes = int(unroll[:, d].prod())
        trips = [n for dimension, n in loops if dimension == d]
        if pes * prod(trips) < size:
            raise MappingError(
                f"mapping: covers {pes * prod(trips)} of {size} of {DIMS[d]} ({pes} PEs x {prod(trips)} trips); "
                f"its loops need {ceil(size / pes)} trips in all"
            )
        needed = ceil(size / (pes * prod(trips[:-1])))
        if (trips and trips[-1] != needed) or int(unroll[:, d].max()) > size:
            raise MappingError(
                f"mapping: {DIMS[d]} has {size}, {pes} PEs x {' x '.join(map(str, trips)) or 1} trips are more than it "
                "needs; shorten its outermost loop or its unroll"
            )


def _placements(
    operand: Operand, mapping: LayerMapping, counter: Counter, loops: Sequence[tuple[int, int]], bits: tuple[int, int]
) -> list[Ints]:
    """Loops inside the tile of each memory of an operand: as stated, or one choice for each share of the memories."""
    hierarchy = counter.hierarchy
    memories = [m for m, held in hierarchy.held if held == operand]
    names = [hierarchy.profile.memories[m].name for m in memories]
    present = np.concatenate([[0], np.cumsum([n > 1 for _, n in loops])]).astype(np.int64)
    stated = mapping.inside.get(operand)
    width = bits[1] if operand == "W" else bits[0]
    rooms = [hierarchy.capacity_bits(m) // hierarchy.room_bits(m, operand, width) for m in memories]
    if stated is None:
        shares = SHARES if any(len(hierarchy.profile.memories[m].operands) > 1 for m in memories) else (1.0,)
        capacities: Floats = np.array([[room * share for room in rooms] for share in shares]).reshape(len(shares), -1)
        options = counter.options(operand, capacities)
        found = [options.positions[k, 0] for k in range(len(shares)) if options.valid[k, 0]]
        if not found:
            raise MappingError(f"mapping: not one word of {operand} fits {' and '.join(names)}; choose another memory")
        return [np.searchsorted(present, position, side="left") for position in found]
    unknown = [name for name in stated if name not in names]
    if unknown:
        raise MappingError(
            f"mapping, inside.{operand}: '{unknown[0]}' does not hold {operand}{nearest(unknown[0], names)}; "
            f"choose from {', '.join(names) or 'none'}"
        )
    made, least = [], 0
    for name, memory, room in zip(names, memories, rooms, strict=True):
        depth = stated.get(name, least)
        if isinstance(depth, bool) or not hasattr(depth, "__index__"):
            raise MappingError(f"mapping, inside.{operand}.{name}: found {depth!r}, expected a whole number of loops")
        if not least <= depth <= len(loops):
            raise MappingError(
                f"mapping, inside.{operand}.{name}: found {depth} loops, expected {least} (what the memory inside it "
                f"holds) to {len(loops)} (all)"
            )
        words = float(counter.nests.tiles(operand, hierarchy.spans[memory])[0, present[depth]])
        if operand != "O" and words > room:
            raise MappingError(
                f"mapping, inside.{operand}.{name}: a tile of {words:.0f} words, {name} has room for {room:.0f}; "
                "hold it for fewer loops"
            )
        made.append(depth)
        least = depth
    return [np.array(made, dtype=np.int64)]


def _dimension(name: str, where: str) -> int:
    if name not in INDEX:
        raise MappingError(f"mapping, {where}: no loop dimension '{name}'; choose from {', '.join(DIMS)}")
    return INDEX[name]


def _whole(n: object, where: str) -> int:
    if isinstance(n, bool) or not hasattr(n, "__index__") or n.__index__() < 1:
        raise MappingError(f"mapping, {where}: found {n!r}, expected a whole number of at least 1")
    return int(n.__index__())
