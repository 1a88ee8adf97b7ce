"""Who proposed a plan, in a reader's words."""

from __future__ import annotations

from collections.abc import Mapping

ORIGINS = {
    "seed": "first plans",
    "rollout": "solver",
    "policy": "agents",
    "local_search": "local search",
    "referee": "sampler",
    "closing": "refitted",
}


def origin(name: str) -> str:
    """The words for an origin."""
    return ORIGINS.get(name, name)


def gained_line(gained: Mapping[str, float]) -> str:
    """Percentage points of the INT8 baseline's energy that the plans of each origin saved."""
    return ", ".join(f"{origin(name)} {100.0 * value:.1f}" for name, value in gained.items())
