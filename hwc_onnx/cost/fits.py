"""Which rows of a mapping table fit the memories, at the widths and with the free space at hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.cost.access import Floats
from hwc_onnx.cost.counting import FULL_SPILL
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.mapping import Fitting, MappingTable
from hwc_onnx.cost.setting import FREE_STEPS, LayerSetting, Place

WordRooms = tuple[float, ...]


class Fits:
    """Answers for one profile; what was found is kept in the tables, by the room that a word takes."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        self._memories = len(hierarchy.profile.memories)
        self._limits = np.array([hierarchy.capacity_bits(i) for i in range(self._memories)])
        self._last_arriving = len(hierarchy.columns) - 3
        self._word_rooms: dict[tuple[int, int], WordRooms] = {}

    def rows(self, table: MappingTable, setting: LayerSetting, place: Place) -> Fitting:
        """Rows whose tiles fit every memory, and the free part of the home memory."""
        words = self._rooms_of_words(setting)
        key = (words, place.input_stays, place.output_stays, place.free)
        found = table.fitting.get(key)
        if found is None:
            limits = self._limits.copy()
            if self._hierarchy.home >= 0:
                limits[self._hierarchy.home] *= place.free / FREE_STEPS
            mask: NDArray[np.bool_] = np.all(self._room(table, words, place) <= limits, axis=1)
            if place.output_stays:
                mask &= table.columns[:, self._last_arriving] - table.columns[:, self._last_arriving + 1] <= FULL_SPILL
            found = table.fitting.get(mask.tobytes())
            if found is None:
                rows = np.nonzero(mask)[0]
                found = table.fitting[mask.tobytes()] = Fitting(rows, np.ascontiguousarray(table.columns[rows]))
            table.fitting[key] = found
        return found

    def beside(self, table: MappingTable, setting: LayerSetting, place: Place, row: int) -> bool:
        """Whether a row that fits an empty home memory fits its free part too."""
        home = self._hierarchy.home
        if home < 0:
            return True
        room = self._room(table, self._rooms_of_words(setting), place)[row, home]
        return bool(room <= self._limits[home] * (place.free / FREE_STEPS))

    def _rooms_of_words(self, setting: LayerSetting) -> WordRooms:
        """Bits that one word takes, for each of `Hierarchy.held`."""
        key = (setting.activation_bits, setting.weight_bits)
        found = self._word_rooms.get(key)
        if found is None:
            found = self._word_rooms[key] = tuple(
                self._hierarchy.room_bits(memory, operand, key[1] if operand == "W" else key[0])
                for memory, operand in self._hierarchy.held
            )
        return found

    def _room(self, table: MappingTable, words: WordRooms, place: Place) -> Floats:
        """Bits that each row takes in each memory, [rows, memories]."""
        key = (words, place.input_stays)
        found = table.room.get(key)
        if found is None:
            found = table.room[key] = np.zeros((len(table), self._memories))
            for column, (memory, operand) in enumerate(self._hierarchy.held):
                # an input that stays is there in full already, its tiles need no room of their own
                if not (memory == self._hierarchy.home and operand == "I" and place.input_stays):
                    found[:, memory] += table.needs[:, column] * words[column]
        return found
