"""The mapping table of one layer shape: the mappings that can be best for some widths, densities and free space.

A row is one mapping as a vector of word counts; its energy at any setting is a product with the energies of one word,
so a query needs no new search. Rows also state the room they need, so that narrow words admit more mappings: the
candidates at fewer bits contain those at more bits, and energy never rises when bits fall.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from hwc_onnx.cost.access import Floats, Ints
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.operands import DIMS, Nest


class Fitting(NamedTuple):
    """The rows of a table that fit: their numbers [r] and their columns [r, c]."""

    rows: Ints
    columns: Floats


@dataclass(frozen=True)
class MappingTable:
    """Candidate mappings of one layer shape.

    `columns` [r, c] as named by `Hierarchy.columns`, `needs` [r, h] words and `inside` [r, h] loops inside the tile as
    named by `Hierarchy.held`, `cycles` [r] temporal iterations, `reduction` [r] products one PE adds per partial sum,
    `unroll` [r, axes, 8], `loop_dims` and `loop_sizes` [r, l] the temporal nest, inner to outer.
    """

    columns: Floats
    needs: Floats
    inside: Ints
    cycles: Floats
    reduction: Floats
    unroll: Ints
    loop_dims: Ints
    loop_sizes: Ints

    def __len__(self) -> int:
        return len(self.columns)

    @cached_property
    def whole(self) -> Ints:
        """PEs along each dimension, [r, 8]."""
        spread: Ints = self.unroll.prod(axis=1)
        return spread

    @cached_property
    def fitting(self) -> dict[object, Fitting]:
        """What queries have found to fit, by what was asked and by the rows themselves (equal answers share one)."""
        return {}

    @cached_property
    def reduced(self) -> dict[float, MappingTable]:
        """The same table for PEs whose lanes add their products before they leave, by lanes (`LayerQuery.reduced`)."""
        return {}

    @cached_property
    def together(self) -> dict[float, Floats]:
        """Products that meet one partial sum at a time, [r], by the lanes that add them."""
        return {}

    @cached_property
    def room(self) -> dict[object, Floats]:
        """Bits that the rows take in the memories, by the widths of their words."""
        return {}

    def describe(self, row: int, nest: Nest, hierarchy: Hierarchy) -> dict[str, object]:
        """Spatial unroll per axis and temporal nest (outer to inner) in loop-dimension notation."""
        spatial = {
            axis.name: {DIMS[d]: int(n) for d, n in enumerate(self.unroll[row, i]) if n > 1}
            for i, axis in enumerate(hierarchy.profile.array.axes)
        }
        loops = [
            [DIMS[d], int(n)] for d, n in zip(self.loop_dims[row], self.loop_sizes[row], strict=True) if n > 1
        ]  # fmt: skip
        return {"spatial": spatial, "temporal": loops[::-1]}

    def with_rows_of(self, other: MappingTable) -> MappingTable:
        """These rows and those of another table of the same shape, equal ones once."""
        length = max(self.loop_dims.shape[1], other.loop_dims.shape[1])
        made: dict[str, Any] = {}
        for name, array in self.arrays().items():
            parts = [array, other.arrays()[name]]
            if name in ("loop_dims", "loop_sizes"):
                absent = int(name == "loop_sizes")
                parts = [np.pad(p, ((0, 0), (0, length - p.shape[1])), constant_values=absent) for p in parts]
            made[name] = np.concatenate(parts)
        facts = np.concatenate([made["columns"], made["needs"], made["cycles"][:, None], made["reduction"][:, None]], axis=1)
        index = np.sort(np.unique(facts, axis=0, return_index=True)[1])
        return MappingTable(**{name: array[index] for name, array in made.items()})

    def arrays(self) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[Any]]]:
        """Everything, for a file."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}
