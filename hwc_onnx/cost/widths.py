"""Bits moved per word at every memory, for one setting: the only thing about a setting that traffic depends on.

A vector with one entry for each kind of word and memory; `moves` says which entries each counted word is multiplied
with, so that settings share everything but this vector.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from hwc_onnx.cost.accelerator import Format, Operand
from hwc_onnx.cost.access import Floats
from hwc_onnx.cost.formats import element_bits
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.laws import stored_bits
from hwc_onnx.cost.operands import OPERANDS, Nest
from hwc_onnx.cost.setting import LayerSetting
from hwc_onnx.graph.loop_dims import LoopDims

INPUT, WEIGHT, SUM, FINISHED, PLAIN_INPUT, PLAIN_WEIGHT = range(6)
"""Kinds of words: inputs and weights as stored, partial sums, finished outputs, inputs and weights once unpacked.

The entry of a finished output is per output the layer computes: its width times the outputs stored for each.
"""

KINDS = 6
Storage = tuple[int, Format | None]


class Widths:
    """Width vectors [KINDS * memories] of one profile; entry `kind * memories + memory`."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        self._memories = hierarchy.profile.memories
        self._sums = [float(hierarchy.word_bits(i, "O", 0)) for i in range(len(self._memories))]
        self._storages: dict[Hashable, list[Storage]] = {}
        self._outputs: dict[LoopDims, int] = {}
        self._plain: dict[Hashable, tuple[Floats, list[tuple[int, int, int, Format]]]] = {}

    def vector(self, setting: LayerSetting) -> Floats:
        """Bits per word of every kind at every memory."""
        key = (setting.activation_bits, setting.weight_bits, setting.out_bits, setting.weighted)
        plain = self._plain.get(key)
        if plain is None:
            plain = self._plain[key] = self._without_zeros(setting)
        bits, packed = plain
        found, count = bits.copy(), len(self._memories)
        found[FINISHED * count : (FINISHED + 1) * count] *= self.stored_share(setting)
        density = (setting.activation_density, setting.weight_density, 1.0, setting.out_density)
        for entry, kind, stored, storage in packed:
            nm = setting.nm if kind == WEIGHT else None
            found[entry] *= element_bits(stored, density[kind], storage, nm, setting.dims.C) / stored
        return found

    def _without_zeros(self, setting: LayerSetting) -> tuple[Floats, list[tuple[int, int, int, Format]]]:
        """The vector as if nothing were left out, and (entry, kind, stored bits, format) where zeros are."""
        inputs, weights, outputs = (self.storages(operand, setting) for operand in OPERANDS)
        rows = {INPUT: inputs, WEIGHT: weights, FINISHED: outputs}
        packed = [
            (kind * len(self._memories) + memory, kind, bits, storage)
            for kind, storages in rows.items()
            for memory, (bits, storage) in enumerate(storages)
            if storage is not None
        ]
        plain: list[float] = [float(bits) for bits, _ in (*inputs, *weights)]
        stored = [float(bits) for bits, _ in outputs]
        return np.array([*plain, *self._sums, *stored, *plain]), packed

    def stored_share(self, setting: LayerSetting) -> float:
        """Elements stored for each output that the layer computes (0: all are consumed on the fly)."""
        outputs = self._outputs.get(setting.dims)
        if outputs is None:
            outputs = self._outputs[setting.dims] = max(1, Nest(setting.dims).words("O"))
        return setting.out_words / outputs

    def word(self, memory: int, operand: Operand, setting: LayerSetting) -> int:
        """Bits read to get one element that is not zero: its stored width, and the count or index that comes with it."""
        weighted = operand == "W" and setting.weighted
        bits, storage = self._storage(
            operand, setting.weight_bits if operand == "W" else setting.activation_bits, weighted
        )[memory]
        return bits + (storage.run_bits if storage is not None and storage.kind in ("csc", "rlc") else 0)

    def storages(self, operand: Operand, setting: LayerSetting) -> list[Storage]:
        """Stored width and zero-suppressing format of an operand at every memory."""
        if operand == "I":
            return self._storage("I", setting.activation_bits, False)
        if operand == "O":
            return self._storage("O", setting.out_bits, False)
        return self._storage("W", setting.weight_bits, setting.weighted)

    def _storage(self, operand: Operand, bits: int, weighted: bool) -> list[Storage]:
        """How each memory stores a word: width and zero-suppressing format."""
        key = (operand, bits, weighted)
        found = self._storages.get(key)
        if found is None:
            found = self._storages[key] = [
                (stored_bits(bits, memory.granules(weighted)), format_at(self._hierarchy, i, operand, weighted))
                for i, memory in enumerate(self._memories)
            ]
        return found


def format_at(hierarchy: Hierarchy, memory: int, operand: Operand, weighted: bool) -> Format | None:
    """The zero-suppressing format that a memory uses for an operand."""
    return hierarchy.profile.memories[memory].formats.get("W" if operand == "W" and weighted else "A")
