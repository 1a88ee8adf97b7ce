"""Energy of one step of a schedule: its layer's best mapping, its vector work, what it reads and writes besides."""

from __future__ import annotations

from collections.abc import Set
from math import inf
from pathlib import Path

from hwc_onnx.cost.accelerator import AcceleratorProfile, Memory
from hwc_onnx.cost.cache import TableCache
from hwc_onnx.cost.facts import StepFacts, Stored
from hwc_onnx.cost.formats import element_bits
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.laws import stored_bits
from hwc_onnx.cost.query import Best, LayerQuery
from hwc_onnx.cost.setting import FREE_STEPS, LayerSetting, Place
from hwc_onnx.errors import ModelError
from hwc_onnx.events import Listener, silent

MEMORY = 400_000
"""Remembered results; beyond it everything is forgotten at once (mapping tables stay)."""

NOTHING_FITS = Best(-1, inf)


class StepEnergies:
    """Energies on one accelerator, remembered; `tables` and `query` answer for single layers."""

    def __init__(self, profile: AcceleratorProfile, cache_dir: Path | None, on_event: Listener = silent) -> None:
        self.profile = profile
        self.hierarchy = Hierarchy(profile)
        self.tables = TableCache(self.hierarchy, cache_dir, on_event)
        self.query = LayerQuery(self.hierarchy)
        self._best: dict[tuple[LayerSetting, Place], Best] = {}
        self._steps: dict[tuple[StepFacts, tuple[bool, ...], int], float] = {}

    def energy(self, step: StepFacts, staying: Set[int], free: int, kept: bool) -> float:
        """Energy of a step with these tensors staying; infinite where no mapping fits the free room."""
        key = (step, flags(step, staying, kept), free if step.layers else 0)
        found = self._steps.get(key)
        if found is None:
            if len(self._steps) > MEMORY:
                self._steps.clear()
                self._best.clear()
            found = self._steps[key] = self._energy(step, staying, free, kept)
        return found

    def best(self, setting: LayerSetting, place: Place) -> Best:
        """The layer's best mapping, `NOTHING_FITS` where the free room is too small."""
        key = (setting, place)
        found = self._best.get(key)
        if found is None:
            found = self._best[key] = self._find(setting, place) or NOTHING_FITS
        return found

    def _find(self, setting: LayerSetting, place: Place) -> Best | None:
        table = self.tables.table(setting.dims)
        if place.free < FREE_STEPS:
            # what is best with all of the home memory is best with less of it, if it still fits
            widest = self.best(setting, place._replace(free=FREE_STEPS))
            if widest.row < 0 or self.query.fits.beside(table, setting, place, widest.row):
                return widest
        return self.query.best(table, setting, place)

    def fitting(self, setting: LayerSetting, place: Place, key: str) -> Best:
        """`best`, which must exist.

        Raises:
            ModelError: no mapping of the layer fits the accelerator's memories.
        """
        found = self.best(setting, place)
        if found.row < 0:
            raise ModelError(
                f"layer '{key}': no mapping fits the memories of '{self.profile.name}' at {setting.activation_bits}-bit "
                f"inputs and {setting.weight_bits}-bit weights; enlarge its buffers or choose another accelerator"
            )
        return found

    def vector(self, ops: float, lookups: float) -> float:
        """Energy of element operations and table look-ups."""
        return ops * self.profile.vector.op_pj + lookups * self.profile.vector.lookup_pj

    def moved(self, tensor: Stored, stays: bool, write: bool) -> dict[str, float]:
        """Energy by component of what the post-processing unit reads or writes of a tensor."""
        found: dict[str, float] = {}
        for memory, directions in passed(self.profile, tensor, stays, write):
            access = sum(memory.write_pj_per_bit if to == "write" else memory.read_pj_per_bit for to in directions)
            component = "dram" if memory is self.profile.memories[-1] else memory.kind
            found[component] = tensor.words * word_bits(memory, tensor) * access
        return found

    def own_cycles(self, step: StepFacts, staying: Set[int]) -> list[tuple[float, str]]:
        """Cycles of each node of a step beside those of its layers, and what sets them: "vector" or a memory.

        A node takes its operations over the unit's lanes, unless a layer hides them, or, where this is longer, the bits it
        moves at a memory over that memory's bandwidth.
        """
        found = [(work / self.profile.vector.lanes, "vector") for work in step.work]
        moved: dict[tuple[int, str], float] = {}
        for tensors, write in ((step.reads, False), (step.writes, True)):
            for tensor in tensors:
                for memory, directions in passed(self.profile, tensor, tensor.storage in staying, write):
                    if memory.bits_per_cycle is not None:
                        cycles = len(directions) * tensor.words * word_bits(memory, tensor) / memory.bits_per_cycle
                        key = (tensor.node, memory.name)
                        moved[key] = moved.get(key, 0.0) + cycles
        for (node, name), cycles in moved.items():
            if cycles > found[node][0]:
                found[node] = (cycles, name)
        return found

    def place(self, step: StepFacts, which: int, staying: Set[int], free: int, kept: bool) -> Place:
        """Where the tensors of layer number `which` of the step are."""
        setting, first, second = step.layers[which]
        stored = which == len(step.layers) - 1 and step.output in staying
        return Place(first in staying, kept if setting.weighted else second in staying, stored, free)

    def _energy(self, step: StepFacts, staying: Set[int], free: int, kept: bool) -> float:
        total = self.vector(step.ops, step.lookups)
        if self.query.leakage_pj_per_cycle:
            total += sum(cycles for cycles, _ in self.own_cycles(step, staying)) * self.query.leakage_pj_per_cycle
        for which, (setting, _, _) in enumerate(step.layers):
            total += self.best(setting, self.place(step, which, staying, free, kept)).energy
        for read in step.reads:
            total += sum(self.moved(read, read.storage in staying, False).values())
        for write in step.writes:
            total += sum(self.moved(write, write.storage in staying, True).values())
        return total


def passed(
    profile: AcceleratorProfile, tensor: Stored, stays: bool, write: bool
) -> list[tuple[Memory, tuple[str, ...]]]:  # fmt: skip
    """The memories that meet a tensor of the post-processing unit, each with the directions its words go there.

    A tensor that does not stay passes through the home memory on its way from or to DRAM; rows of a table do not.
    """
    dram, home = profile.memories[-1], profile.home
    own = "write" if write else "read"
    found: list[tuple[Memory, tuple[str, ...]]] = []
    if home is not None and not tensor.table:
        found.append((home, (own,) if stays else ("read", "write")))
    if not stays:
        found.append((dram, (own,)))
    return found


def word_bits(memory: Memory, tensor: Stored) -> float:
    """Bits of one word of a tensor of the post-processing unit at a memory."""
    return element_bits(
        stored_bits(tensor.bits, memory.granules(tensor.table)), tensor.density, memory.formats.get("W" if tensor.table else "A")
    )


def flags(step: StepFacts, staying: Set[int], kept: bool) -> tuple[bool, ...]:
    """Which of a step's tensors stay, in a fixed order."""
    found = [kept, step.output in staying]
    for _, first, second in step.layers:
        found.append(first in staying)
        found.append(second in staying)
    for stored in step.reads:
        found.append(stored.storage in staying)
    for stored in step.writes:
        found.append(stored.storage in staying)
    return tuple(found)
