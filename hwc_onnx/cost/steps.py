"""Energy of one step of a schedule: its layer's best mapping, its vector work, what it reads and writes besides."""

from __future__ import annotations

from collections.abc import Set
from math import inf
from pathlib import Path

from hwc_onnx.cost.accelerator import AcceleratorProfile
from hwc_onnx.cost.cache import TableCache
from hwc_onnx.cost.facts import StepFacts, Stored
from hwc_onnx.cost.formats import element_bits
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.laws import stored_bits
from hwc_onnx.cost.query import Best, LayerQuery
from hwc_onnx.cost.setting import FREE_STEPS, LayerSetting, Place
from hwc_onnx.errors import ModelError

MEMORY = 400_000
"""Remembered results; beyond it everything is forgotten at once (mapping tables stay)."""

NOTHING_FITS = Best(-1, inf)


class StepEnergies:
    """Energies on one accelerator, remembered; `tables` and `query` answer for single layers."""

    def __init__(self, profile: AcceleratorProfile, cache_dir: Path | None) -> None:
        self.profile = profile
        self.hierarchy = Hierarchy(profile)
        self.tables = TableCache(self.hierarchy, cache_dir)
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

    def vector_cycles(self, ops: float, lookups: float) -> float:
        """Cycles of work that no layer hides."""
        return (ops + lookups) / self.profile.vector.lanes

    def moved(self, tensor: Stored, stays: bool, write: bool) -> dict[str, float]:
        """Energy by component of reading or writing a whole tensor from the post-processing unit.

        A tensor that does not stay passes through the home memory on its way from or to DRAM.
        """
        dram, home = self.profile.memories[-1], self.profile.home
        found: dict[str, float] = {}
        if home is not None:
            width = element_bits(stored_bits(tensor.bits, home.pack), tensor.density, home.formats.get("A"))
            access = home.write_pj_per_bit if write else home.read_pj_per_bit
            if not stays:
                access = home.write_pj_per_bit + home.read_pj_per_bit
            found[home.kind] = tensor.words * width * access
        if not stays:
            width = element_bits(stored_bits(tensor.bits, dram.pack), tensor.density, dram.formats.get("A"))
            found["dram"] = tensor.words * width * (dram.write_pj_per_bit if write else dram.read_pj_per_bit)
        return found

    def place(self, step: StepFacts, which: int, staying: Set[int], free: int, kept: bool) -> Place:
        """Where the tensors of layer number `which` of the step are."""
        setting, first, second = step.layers[which]
        stored = which == len(step.layers) - 1 and step.output in staying
        return Place(first in staying, kept if setting.weighted else second in staying, stored, free)

    def _energy(self, step: StepFacts, staying: Set[int], free: int, kept: bool) -> float:
        total = self.vector(step.ops, step.lookups)
        if not step.layers:
            total += self.vector_cycles(step.ops, step.lookups) * self.query.leakage_pj_per_cycle
        for which, (setting, _, _) in enumerate(step.layers):
            total += self.best(setting, self.place(step, which, staying, free, kept)).energy
        for read in step.reads:
            total += sum(self.moved(read, read.storage in staying, False).values())
        for write in step.writes:
            total += sum(self.moved(write, write.storage in staying, True).values())
        return total


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
