"""What a long call reports while it runs: plain records, passed to the caller's `on_event`.

A listener must not raise; what it does cannot change the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """A step began ("calibrate", "search", "gate", ...); `detail` is one line for people."""

    name: str
    detail: str = ""


@dataclass(frozen=True)
class Step:
    """Progress inside the current phase: `done` of `total` units of work (total 0: unknown)."""

    done: int
    total: int
    detail: str = ""


@dataclass(frozen=True)
class TrialDone:
    """One candidate was evaluated.

    `energy` is a fraction of the INT8 baseline's, `drop_points` positive when worse, `improved` tells that it became
    the best so far, `best_energy` that best's energy; `file_bytes` is 0 when no file was written; `seconds` since the
    search began.
    """

    evaluations: int
    budget: int
    energy: float
    drop_points: float
    improved: bool
    best_energy: float
    seconds: float
    origin: str = ""
    file_bytes: int = 0


@dataclass(frozen=True)
class Note:
    """Something the user should know, such as a choice made for them; `warning` when it weakens the result."""

    text: str
    warning: bool = False


Event = Phase | Step | TrialDone | Note
Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """The listener of a caller that gave none."""
