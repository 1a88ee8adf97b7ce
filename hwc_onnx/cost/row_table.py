"""Rows that a window moves, by the cut of its outputs and taps: each cut is counted once.

A search asks for few of all possible temporal steps, so those asked for are numbered as they come, and the table has
room for these numbers only: an axis of 20 000 outputs and 256 taps would need five million entries per unroll.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.cost.window import Axis, Cut, rows_moved

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class RowTable:
    """Rows moved along `axis`; `pes` [u, 4]: PEs of the outputs and taps in all, and of both under one memory instance."""

    def __init__(self, axis: Axis, pes: Ints) -> None:
        self.axis = axis
        kinds, kind_of = np.unique(pes, axis=0, return_inverse=True)
        self._kinds: list[list[int]] = kinds.tolist()
        self._kind_of: Ints = kind_of.reshape(-1)
        self._outputs, self._taps = Numbers(axis.outputs), Numbers(axis.taps)
        self._table: Floats = np.full((len(kinds), 0, 0), np.nan)

    def rows(self, unroll: Ints, steps_o: Ints, steps_k: Ints) -> Floats:
        """Rows moved [..., n] with unroll [n] and temporal steps of outputs and taps inside the placement [..., n]."""
        number_o, number_k = self._outputs.of(steps_o), self._taps.of(steps_k)
        self._grow(len(self._outputs.steps), len(self._taps.steps))
        over, under = self._table.shape[1:]
        code = (self._kind_of[unroll] * over + number_o) * under + number_k
        table = self._table.reshape(-1)
        values: Floats = table[code]
        missing = code[np.isnan(values)]
        if missing.size:
            wanted = np.zeros(table.size, dtype=np.bool_)
            wanted[missing] = True
            for unknown in np.nonzero(wanted)[0].tolist():
                kind, rest = divmod(unknown, over * under)
                number_o, number_k = divmod(rest, under)
                whole_o, whole_k, inside_o, inside_k = self._kinds[kind]
                outputs = Cut(self._outputs.steps[number_o], inside_o, whole_o)
                table[unknown] = rows_moved(self.axis, outputs, Cut(self._taps.steps[number_k], inside_k, whole_k))
            values = table[code]
        return values

    def _grow(self, outputs: int, taps: int) -> None:
        """Makes room for so many numbers, twice as much where there is too little."""
        over, under = self._table.shape[1:]
        if outputs > over or taps > under:
            room = (outputs * 2 if outputs > over else over, taps * 2 if taps > under else under)
            table = np.full((len(self._table), *room), np.nan)
            table[:, :over, :under] = self._table
            self._table = table


class Numbers:
    """Temporal steps of a dimension of this size, numbered from 0 in the order in which they are first asked for."""

    def __init__(self, size: int) -> None:
        self.steps: list[int] = []
        self._number: Ints = np.full(table_width(size), -1)

    def of(self, steps: Ints) -> Ints:
        """The number of each, any shape."""
        numbers: Ints = self._number[steps]
        if (numbers < 0).any():
            new = np.unique(steps[numbers < 0])
            self._number[new] = len(self.steps) + np.arange(len(new))
            self.steps += new.tolist()
            numbers = self._number[steps]
        return numbers


def table_width(size: int) -> int:
    """Entries of a table indexed by temporal steps 0..size."""
    return size + 1
