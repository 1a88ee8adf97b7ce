"""What is known of a node while its cost is added up."""

from __future__ import annotations

from hwc_onnx.cost.facts import Stored
from hwc_onnx.cost.steps import StepEnergies, passed
from hwc_onnx.cost.terms import stored_terms
from hwc_onnx.cost.types import Term

Parts = dict[str, float]
Accesses = dict[str, dict[str, dict[str, float]]]


class Ledger:
    """What is known of one node so far: energy by component, the terms it is the sum of, words by memory and operand."""

    def __init__(self, energies: StepEnergies) -> None:
        self.energies = energies
        self.parts: Parts = {}
        self.terms: list[Term] = []
        self.accesses: Accesses = {}

    def add(self, parts: Parts, terms: list[Term]) -> None:
        """Add to the energy, in both forms."""
        for name, value in parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + value
        self.terms += terms

    def count(self, memory: str, operand: str, direction: str, words: float, done: float | None = None) -> None:
        """Count words; `done` of them where zeros spare some."""
        counts = self.accesses.setdefault(memory, {}).setdefault(operand, {"read": 0.0, "write": 0.0})
        if done is not None or f"{direction}_done" in counts:
            before = counts.get(f"{direction}_done", counts[direction])
            counts[f"{direction}_done"] = before + (words if done is None else done)
        counts[direction] += words

    def stored(self, name: str, tensor: Stored, stays: bool, write: bool) -> None:
        """What the post-processing unit reads or writes of a tensor."""
        profile = self.energies.profile
        self.add(self.energies.moved(tensor, stays, write), stored_terms(profile, name, tensor, stays, write))
        operand = "O" if write else "W" if tensor.table else "I"
        for memory, directions in reversed(passed(profile, tensor, stays, write)):
            for direction in directions:
                self.count(memory.name, operand, direction, float(tensor.words))
