"""AccelForge's best energy mapping of some cases: run_accelforge.py --out results/accelforge.json [--only PATTERN]

AccelForge searches the whole space of its mapper (uneven placement; loop bounds without remainders, then with), so its
answer does not depend on a list of unrollings. But the order in which memories are listed is part of the architecture:
it sets which memory's loops may stand inside another's, also for memories beside one another. Each case is therefore
mapped with every order of the memories at the same distance from the MAC unit, input registers innermost first (there a
window of inputs slides under weights and sums that stay), as long as the time lasts; the best counts.
"""

from __future__ import annotations

import argparse
import fnmatch
import signal
import time
from importlib.metadata import version
from itertools import permutations, product
from pathlib import Path
from types import FrameType
from typing import Any

import accelforge as af
from accelforge.frontend.mapping import Reservation
from architectures import ARCHITECTURES, Architecture, Axis, Memory
from cases import CASES, Case
from results_file import Record, ResultsFile

TENSORS = {"input": "I", "weight": "W", "output": "O"}
# No strided 1x1 layers: AccelForge fetches what the stride jumps over.
SELECTED = (
    "resnet50/stage4.reduce",
    "resnet50/fc",
    "resnet50/stage2.reduce_first",
    "resnet50/stage5.expand",
    "mobilenetv2/b3.expand",
    "mobilenetv2/b8.project",
    "mobilenetv2/last",
    "vit-b/mlp1",
    "lstm/recurrent",
    "mobilenetv2/b8.depthwise",
    "mobilenetv2/b12.depthwise",
    "resnet50/stage3.conv3x3",
    "resnet50/stage5.conv3x3",
    "alexnet/conv3",
    "vgg16/conv5_1",
)


# Whether loops may leave remainders, and of tile shapes closer than which factor one is tried: neither space contains
# the other, since trying all tile shapes with remainders takes too long.
SPACES = ((False, 1.0), (True, 1.5))

Order = tuple[Memory, ...]


class OutOfTime(Exception):
    """A case took longer than it may."""


def workload(case: Case, word_bits: int) -> dict[str, Any]:
    """The layer as an einsum, without loops of size 1."""
    axes = {"Y": ("OY", "FY", 0), "X": ("OX", "FX", 1)}
    loops = {dim: size for dim, size in case.sizes.items() if size > 1}

    def follows(*dims: str) -> dict[str, str]:
        return {dim: dim.lower() for dim in dims if dim in loops}

    window: dict[str, str] = {}
    for name, (out, kernel, axis) in axes.items():
        terms = [f"{case.stride[axis]} * {out.lower()}"] if out in loops else []
        terms += [f"{case.dilation[axis]} * {kernel.lower()}"] if kernel in loops else []
        window |= {f"I{name}": " + ".join(terms)} if terms else {}
    accesses = [
        {"name": "I", "projection": {**follows("B", "G", "C"), **window}},
        {"name": "W", "projection": follows("G", "K", "C", "FY", "FX")},
        {"name": "O", "projection": follows("B", "G", "K", "OY", "OX"), "output": True},
    ]
    return {
        "bits_per_value": {"All": word_bits},
        "einsums": [
            {
                "name": "layer",
                "tensor_accesses": accesses,
                "renames": TENSORS,
                "iteration_space_shape": [f"0 <= {dim.lower()} < {size}" for dim, size in loops.items()],
            }
        ],
    }


def orders(architecture: Architecture) -> list[Order]:
    """Orders of the memories from DRAM inwards, for every order of those at the same distance from the MAC unit."""
    *inner, dram = architecture.memories
    shared = permutations([memory for memory in inner if memory.scope == "shared"])
    registers = list(permutations([memory for memory in inner if memory.scope == "pe"]))
    registers.sort(key=lambda inside: "I" not in inside[-1].operands)
    return [(dram, *outside, *inside) for outside in shared for inside in registers]


def architecture_nodes(case: Case, architecture: Architecture, order: Order) -> list[Any]:
    """The memories in the given order, the array and the MAC unit."""
    array = af.arch.Container(
        name="array", spatial=[_axis(case, "rows", architecture.rows), _axis(case, "columns", architecture.columns)]
    )
    mac = af.arch.Compute(
        name="mac",
        leak_power=0,
        area=0,
        actions=[{"name": "compute", "energy": architecture.mac_energy, "throughput": 1}],
    )
    shared = [_memory(memory, architecture.word_bits) for memory in order if memory.scope == "shared"]
    registers = [_memory(memory, architecture.word_bits) for memory in order if memory.scope == "pe"]
    return [*shared, array, *registers, mac]


def _memory(memory: Memory, word_bits: int) -> Any:
    names = {operand: name for name, operand in TENSORS.items()}
    action = {"energy": memory.energy, "bits_per_action": word_bits, "throughput": float("inf")}
    return af.arch.Memory(
        name=memory.name,
        size=float("inf") if memory.words is None else memory.words * word_bits,
        leak_power=0,
        area=0,
        tensors={"keep": " | ".join(names[operand] for operand in memory.operands)},
        actions=[{"name": name, **action} for name in ("read", "write")],
    )


def _axis(case: Case, name: str, axis: Axis) -> dict[str, Any]:
    barred = [dim.lower() for dim, size in case.sizes.items() if size > 1 and dim not in axis.dims]
    bounds = [{"expression": " | ".join(barred), "operator": "==", "value": 1}] if barred else []
    return {"name": name, "fanout": axis.size, "loop_bounds": bounds}


def best(case: Case, architecture: Architecture, order: Order, space: tuple[bool, float], limit: int) -> Record:
    """Energy, accesses and mapping with one order of the memories, in one space of loop bounds."""
    remainders, coarseness = space
    nodes = architecture_nodes(case, architecture, order)
    spec = af.Spec(arch=af.Arch(nodes=nodes), workload=workload(case, architecture.word_bits))
    spec.mapper.metrics = af.mapper.Metrics.ENERGY
    spec.mapper.explore_imperfect_spatial_loops = remainders
    spec.mapper.explore_imperfect_temporal_loops = remainders
    spec.mapper.tiling_coarseness = coarseness
    spec.mapper.info_metrics = af.mapper.Metrics.ENERGY | af.mapper.Metrics.ACTIONS
    signal.alarm(limit)
    try:
        mappings = spec.map_workload_to_arch(print_progress=False)
    finally:
        signal.alarm(0)
    accesses: dict[str, dict[str, dict[str, float]]] = {memory.name: {} for memory in architecture.memories}
    total = architecture.mac_energy * case.macs
    for (memory, operand, action), count in mappings.actions(per_component=True, per_tensor=True).items():
        if memory in accesses:
            words = float(count)
            accesses[memory].setdefault(operand, {})[action] = words
            total += words * next(m.energy for m in architecture.memories if m.name == memory)
    return {
        "energy": float(mappings.energy()),
        "energy_from_accesses": total,
        "remainders": remainders,
        "order": [memory.name for memory in order],
        "accesses": accesses,
        "mapping": [_line(node) for node in mappings.mapping().nodes if not isinstance(node, Reservation)],
    }


def _line(node: Any) -> str:
    """A node of AccelForge's mapping, outermost first: what a memory holds from here on, or a loop and its tile."""
    if hasattr(node, "tensors"):
        return f"{node.component} holds {', '.join(sorted(node.tensors))}"
    if hasattr(node, "tile_shape"):
        where = f" on {node.component} {node.name}" if hasattr(node, "component") else ""
        return f"for {node.rank_variable} in tiles of {node.tile_shape}{where}"
    return str(getattr(node, "component", node))


def record(case: Case, architecture: Architecture, limit: int) -> Record:
    """The best of the orders and spaces that could be searched in the time."""
    began = time.monotonic()
    found: list[Record] = []
    failed: list[str] = []
    for order, space in product(orders(architecture), SPACES):
        left = limit - int(time.monotonic() - began)
        name = " ".join(memory.name for memory in order) + (" with remainders" if space[0] else "")
        try:
            if left <= 0:
                raise OutOfTime
            found.append(best(case, architecture, order, space, left))
        except OutOfTime:
            failed.append(f"{name}: not finished in time")
        except (RuntimeError, ValueError, AssertionError) as error:
            failed.append(f"{name}: {type(error).__name__}: {error}")
    outcome = min(found, key=lambda one: one["energy"]) if found else {"error": "; ".join(failed)}
    return {
        "case": case.name,
        "architecture": architecture.name,
        "dims": case.sizes,
        "stride": case.stride,
        "dilation": case.dilation,
        "macs": case.macs,
        "wall_seconds": round(time.monotonic() - began, 2),
        "searches": len(found),
        "searches_failed": failed,
        **outcome,
    }


def _alarm(signum: int, frame: FrameType | None) -> None:
    raise OutOfTime


def main() -> None:
    """Run the selected cases that are not in the output file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file; cases in it are skipped")
    parser.add_argument("--only", default="*", help="case names as a pattern, such as 'resnet50/*'")
    parser.add_argument("--arch", choices=ARCHITECTURES, action="append", help="architecture; default all")
    parser.add_argument("--limit", type=int, default=150, help="seconds for a case on an architecture")
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, _alarm)
    af.set_n_parallel_jobs(1)
    settings = {
        "metrics": "energy",
        "spaces": [dict(zip(("explore_imperfect_loops", "tiling_coarseness"), space, strict=True)) for space in SPACES],
        "limit_seconds": arguments.limit,
    }
    results = ResultsFile(arguments.out, "accelforge", version("accelforge"), settings)
    by_name = {case.name: case for case in CASES}
    for case in (by_name[name] for name in SELECTED if fnmatch.fnmatch(name, arguments.only)):
        for name in arguments.arch or ARCHITECTURES:
            if results.has(case.name, name):
                continue
            one = record(case, ARCHITECTURES[name], arguments.limit)
            results.add(one)
            energy = one["energy"] / case.macs if "energy" in one else float("nan")
            print(f"{case.name:45} {name:18} {energy:10.4f} per MAC {one['wall_seconds']:7.1f} s", flush=True)


if __name__ == "__main__":
    main()
