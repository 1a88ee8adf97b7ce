"""What `profile --explain` prints: each product of a node's energy, so that the sum can be checked by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from string import ascii_lowercase
from typing import Any

from rich.console import RenderableType

from hwc_onnx.cost.types import COMPONENTS
from hwc_onnx.report.console import table, wrapped
from hwc_onnx.report.quantities import energy, exact, latency, percent, scale_of

Payload = dict[str, Any]
Node = dict[str, Any]


def explain_tables(payloads: Sequence[Payload]) -> list[RenderableType]:
    """How one node's energy comes about on each accelerator.

    `payloads` are of `with_nodes`, with that node alone and its terms.
    """
    shown: list[RenderableType] = []
    for payload in payloads:
        (node,) = payload["nodes"]
        if shown:
            shown.append("")
        shown += [
            wrapped(
                f"{node['key']} ({node['op_type']}) on {payload['accelerator']}: "
                f"{energy(node['energy_pj']['total'], payload['energy_unit'])} per inference"
            ),
            *(wrapped(line) for line in _facts(node, payload)),
            "",
            *_terms(node, payload["energy_unit"]),
        ]
        if node["accesses"]:
            shown += ["", _accesses(node)]
        if node["mapping"]:
            shown += ["", *_nest(node, payload)]
    return shown


def _facts(node: Node, payload: Payload) -> Iterator[str]:
    mapping = node["mapping"]
    if mapping:
        yield "loops " + " ".join(f"{name}{size}" for name, size in mapping["dims"].items())
        operands = (("I", "inputs"), ("W", "weights"), ("O", "outputs"))
        yield ", ".join(
            f"{name} {mapping['bits'][key]} bits"
            + (f" (density {mapping['density'][key]:.6g})" if mapping["density"][key] < 1.0 else "")
            for key, name in operands
            if key != "O" or mapping["output"] != "streams on"
        )
        yield f"input: {mapping['input']}, weights: {mapping['weights']}, output: {mapping['output']}"
        yield (
            f"{exact(node['macs'])} MACs in {exact(node['cycles'])} cycles ({latency(node['latency_s'])}), "
            f"{percent(node['utilisation'])} of the array used, bound by {node['bound_by']}"
        )
    elif " x " in node["method"]:
        cycles = f"{exact(node['cycles'])} cycles ({latency(node['latency_s'])})"
        yield f"runs {node['method']}, {exact(node['macs'])} MACs, {cycles}"
    else:
        yield from _time(node)
    found = node["accumulator"]
    if found is not None:
        bits = payload["accumulators"]["bits"]
        how = "going by its weights" if found["bound"] == "weights" else "at most, going by its widths"
        verdict = "can overflow" if found["needed_bits"] > bits else "hold them"
        yield f"sums need {found['needed_bits']} bits {how}; accumulators of {bits} bits {verdict}"


def _time(node: Node) -> Iterator[str]:
    """How long a node that is no layer takes, and why."""
    time = f"{exact(node['cycles'])} cycles ({latency(node['latency_s'])}), bound by {node['bound_by']}"
    if node["method"] == "fused":
        yield "runs with the layer before it: " + (
            f"its words take {time}" if node["cycles"] else "no time of its own"
        )
    elif node["method"] == "unmodelled":
        yield "its work is not modelled, only what it reads and writes" + (f": {time}" if node["cycles"] else "")
    elif node["cycles"]:
        yield time


def _terms(node: Node, unit: str) -> Iterator[RenderableType]:
    """The products by component, then what the marks and numbers in them stand for."""
    total = node["energy_pj"]["total"]
    if not node["terms"]:
        yield "costs nothing"
        return
    factor, name = scale_of(total, unit)
    made = table(
        "Energy = count x factor x bits x constant", "", "count", "factor", "bits", unit_of(unit), "", "", name
    )
    made.padding = (0, 1, 0, 0)
    sources: dict[str, int] = {}
    marks: dict[str, str] = {}
    for component in COMPONENTS:
        terms = [term for term in node["terms"] if term["component"] == component]
        if not terms:
            continue
        made.add_row(component)
        for term in terms:
            number = sources.setdefault(term["field"], len(sources) + 1)
            letters = "".join(sorted(marks.setdefault(why, mark(len(marks))) for why in term["why"]))
            made.add_row(
                f" {term['what']}",
                exact(term["count"]),
                "" if term["factor"] == 1.0 else exact(term["factor"]),
                "" if term["bits"] is None else exact(term["bits"]),
                exact(term["constant"]),
                f"[{number}]",
                letters,
                f"{term['energy_pj'] / factor:.3f}",
            )
        made.add_row(f" sum of {component}", "", "", "", "", "", "", f"{node['energy_pj'][component] / factor:.3f}")
    made.add_row("sum", "", "", "", "", "", "", f"{total / factor:.3f}")
    yield made
    if marks:
        yield ""
    for why, letter in marks.items():
        yield wrapped(f"{letter}  {why}", "   ")
    yield ""
    known = {term["field"]: term for term in node["terms"]}
    for field, number in sources.items():
        term = known[field]
        yield wrapped(
            f"[{number}] {field} = {term['value']:.6g} {term['unit']}: {term['source'] or 'a choice'}", "    "
        )


def _accesses(node: Node) -> RenderableType:
    spared = any("_done" in name for counts in node["accesses"].values() for c in counts.values() for name in c)
    extra = ("of them done", "of them done") if spared else ()
    names = ("read", *extra[:1], "written", *extra[1:])
    made = table("Accesses in words", "memory", "operand", *names, left=2)
    for memory, operands in node["accesses"].items():
        for operand, counts in operands.items():
            figures = []
            for direction in ("read", "write"):
                figures.append(exact(counts[direction]))
                if spared:
                    done = counts.get(f"{direction}_done")
                    figures.append("" if done is None else exact(done))
            made.add_row(memory, operand, *figures)
    return made


def _nest(node: Node, payload: Payload) -> Iterator[str]:
    """The temporal loops, outer to inner, with the tiles that memories hold inside them, and the spatial unrolls."""
    mapping = node["mapping"]
    order = [memory["name"] for memory in reversed(payload["memories"])]
    loops = mapping["temporal"]
    yield "Mapping, outermost loop first; [memory: words of an operand held meanwhile]"
    outside = [
        name
        for name, key in (("input", "input"), ("weights", "weights"), ("output", "output"))
        if mapping[key] == "dram"
    ]
    if outside:
        yield f"[{order[0]}: {', '.join(outside)}]"
    for depth in range(len(loops) + 1):
        held = [tile for tile in mapping["tiles"] if len(loops) - tile["loops"] == depth]
        for tile in sorted(held, key=lambda tile: order.index(tile["memory"])):
            yield f"{'  ' * depth}[{tile['memory']}: {tile['words']} {tile['operand']}]"
        if depth < len(loops):
            name, size = loops[depth]
            yield f"{'  ' * depth}for {name} in {size}"
    yield f"{'  ' * len(loops)}a multiply-accumulate in each PE"
    for axis, spread in mapping["spatial"].items():
        over = " ".join(f"{name}{size}" for name, size in spread.items())
        yield f"spread over {axis}: {over or 'nothing'}"


def unit_of(unit: str) -> str:
    """The unit of a constant's energy."""
    return "pJ" if unit == "pJ" else "MAC"


def mark(number: int) -> str:
    """a, b, ... z, A, B, ... for the explanations."""
    letters = ascii_lowercase + ascii_lowercase.upper()
    return letters[number] if number < len(letters) else f"({number})"
