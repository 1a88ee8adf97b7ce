"""Limits beside accuracy: what a plan may take, and in words by how much one exceeds them.

A plan's figures are its energy (share of the INT8 baseline's), its latency in seconds, the bytes of its file, and the bytes
that its weights and stored activations take in the accelerator's memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_WORDS = {
    "energy": "energy is {0:.1%} of the INT8 baseline's, the limit {1:.1%}",
    "latency": "latency is {0:.4g} s, the limit {1:.4g} s",
    "bytes": "the file has {0:,.0f} bytes, the limit is {1:,.0f}",
    "memory": "weights and activations take {0:,.0f} bytes of the accelerator's memory, the limit is {1:,.0f}",
}


@dataclass(frozen=True)
class Limits:
    """The largest allowed figures by name; None allows any."""

    energy: float | None = None
    latency: float | None = None
    bytes: float | None = None
    memory: float | None = None

    def given(self) -> dict[str, float]:
        """The limits that there are."""
        found = {name: getattr(self, name) for name in _WORDS}
        return {name: float(value) for name, value in found.items() if value is not None}

    def excesses(self, figures: Mapping[str, float]) -> dict[str, float]:
        """By which share each limit is exceeded (at or below zero: kept).

        Raises:
            KeyError: a limited figure is missing.
        """
        return {name: figures[name] / limit - 1.0 if limit > 0.0 else figures[name] for name, limit in self.given().items()}

    def missed(self, figures: Mapping[str, float]) -> list[str]:
        """Each limit that is not kept, in words, with what is missing to it."""
        return [
            f"{_WORDS[name].format(figures[name], self.given()[name])}: {excess:.1%} too much"
            for name, excess in self.excesses(figures).items()
            if excess > 0.0
        ]
