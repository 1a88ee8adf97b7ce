"""Parts of an energy as products that can be checked by hand: so many words, by their bits, by what a bit costs."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hwc_onnx.report.quantities import count, energy

SAME = ("component", "what", "counted", "factor", "bits", "constant")
"""Fields in which products agree that can be counted as one."""


def merged(nodes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The products (`terms`) of several nodes, those of the same factors as one with the sum of their counts."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for node in nodes:
        for term in node.get("terms", ()):
            one = found.setdefault(tuple(term[name] for name in SAME), {**term, "count": 0.0, "energy_pj": 0.0})
            one["count"] += term["count"]
            one["energy_pj"] += term["energy_pj"]
    return list(found.values())


def largest(terms: Iterable[Mapping[str, Any]], component: str, unit: str, most: int, parted: str = ": ") -> list[str]:
    """The products of one component that cost most, each as a line of HTML, and what the others come to.

    `unit` is that of energies, `parted` stands between what a product is and its numbers.
    """
    own = sorted((term for term in terms if term["component"] == component), key=lambda term: -float(term["energy_pj"]))
    lines = [f"{html.escape(term['what'])}{parted}{product(term, unit)}" for term in own[:most]]
    rest = own[most:]
    return [*lines, f"and {len(rest)} more, together {energy(_sum(rest), unit)}"] if rest else lines


def product(term: Mapping[str, Any], unit: str) -> str:
    """One product with its numbers, such as `784 words x 8 bit x 20 pJ/bit = 125.4 nJ`."""
    each = "pJ" if unit == "pJ" else "MAC"
    factors = [f"{count(term['count'])} {html.escape(term['counted'])}"]
    if term["factor"] != 1.0:
        factors.append(f"{term['factor']:.4g}")
    if term["bits"] is not None:
        factors.append(f"{term['bits']:.4g} bit")
        each += "/bit"
    factors.append(f"{term['constant']:.4g} {each}")
    return f"{' x '.join(factors)} = {energy(term['energy_pj'], unit)}"


def _sum(terms: Sequence[Mapping[str, Any]]) -> float:
    return sum(float(term["energy_pj"]) for term in terms)
