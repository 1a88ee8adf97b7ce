"""What is compared: which strategies from which start, over how many seeds, at which budget."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from hwc_onnx.errors import UsageError
from hwc_onnx.plugins import nearest
from hwc_onnx.search.seeds import STARTS, Start, first_plans
from hwc_onnx.search.strategy import check_sampler

AGENT = "composite"
"""The strategy that the verdict is about where it takes part; else the first one named."""


@dataclass(frozen=True)
class Contest:
    """Every sampler from every start, once for each seed 0, 1, ..., at `budget` evaluation-equivalents each.

    Raises:
        UsageError: an unknown or repeated name, no seed, or a budget that the first plans use up.
    """

    samplers: tuple[str, ...]
    starts: tuple[Start, ...]
    seeds: int
    budget: int

    def __post_init__(self) -> None:
        """Refuse what cannot be compared."""
        for option, names in (("--sampler", self.samplers), ("--start", self.starts)):
            if not names:
                raise UsageError(f"{option}: none is named; name at least one")
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise UsageError(f"{option}: '{twice[0]}' is named twice; a study of it would only repeat itself")
        for name in self.samplers:
            check_sampler(name)
        for start in self.starts:
            if start not in STARTS:
                raise UsageError(f"--start: unknown start '{start}'{nearest(start, list(STARTS))}; choose from {', '.join(STARTS)}")
        if self.seeds < 1:
            raise UsageError(f"--seeds: {self.seeds}; at least 1 seed has to be run")
        for start in self.starts:
            check_budget(self.budget, start)

    @property
    def entries(self) -> list[tuple[str, Start]]:
        """(sampler, start) of every row of a seed, in the order of the table."""
        return [(sampler, start) for start in self.starts for sampler in self.samplers]

    @property
    def reference(self) -> str:
        """The sampler that all others are compared with."""
        return AGENT if AGENT in self.samplers else self.samplers[0]


def check_budget(budget: int, start: Start, preparation: float = 0.0) -> None:
    """Refuse a budget in which a strategy would propose nothing (UsageError); `preparation` in evaluation-equivalents."""
    first = first_plans(start)
    least = int(preparation) + first + 1 + (preparation > int(preparation))
    if budget < least:
        words = f"the {first} plans that a study begins with" if first > 1 else "the INT8 baseline that a study begins with"
        cost = f", preparation takes {preparation:.1f} evaluation-equivalents" if preparation else ""
        raise UsageError(
            f"--trials: {budget} is used up by {words} (--start {start}){cost}; give {least} or more, so that a strategy has "
            "its turn"
        )


def folder_name(sampler: str, start: str) -> str:
    """Name of a study's folder; a sampler of your own (module:attribute) is told apart by a digest."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", sampler)
    mark = "" if plain == sampler else f"-{hashlib.sha256(sampler.encode()).hexdigest()[:8]}"
    return f"{plain}{mark}.{start}"
