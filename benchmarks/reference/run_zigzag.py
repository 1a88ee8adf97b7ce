"""ZigZag's best energy mapping of every case: python run_zigzag.py --out results/zigzag.json [--only PATTERN] ...

Each unrolling is searched by ZigZag's loop order engine (LOMA, uneven placement) with up to 7 loops (loop prime
factors), then, if time is left, the best unrollings of the two best kinds with up to 8. The budget is CPU time, so that
a busy machine does not weaken the search; where it ends first, the best so far counts, and the record says so.
"""

from __future__ import annotations

import argparse
import fnmatch
import logging
import time
from importlib.metadata import version
from itertools import zip_longest
from math import inf
from pathlib import Path
from typing import Any

from architectures import ARCHITECTURES, Architecture
from cases import Case, ordered
from results_file import Record, ResultsFile
from unrolling import Kind, Pair, candidates
from zigzag.datatypes import LayerOperand
from zigzag_model import OPERANDS, Found, Layer, SpatialMappingRefused

# (most loops in an order, unrollings searched with so many, share of the budget that may be used when it is done)
ROUNDS = ((7, None, 1.0), (8, 2, 1.0))
# ZigZag unrolls in fractions (197 rows on 14 units: 13.13 in 15 passes) and rounds the units and tiles that follow from
# them, in its counts too. A mapping for which that matters more than this is not taken.
ROUNDING = 0.0105
SHORT = 0.005  # nor is one that counts this much less than each word once, or each product once


class Search:
    """Best mappings of one case on one architecture so far: of all, and of those whose unrolling divides the layer."""

    def __init__(self, case: Case, architecture: Architecture, budget: float):
        self.layer = Layer(case, architecture)
        self.case, self.architecture, self.budget = case, architecture, budget
        self.start = time.process_time()
        self.best: Found | None = None
        self.best_exact: Found | None = None
        self.tried, self.miscounted, self.refused, self.complete = 0, 0, 0, True

    def run(self) -> None:
        """All rounds, within the budget."""
        kinds = self.accurate(candidates(self.case, self.architecture))
        for loops, most, share in ROUNDS:
            reached: dict[Kind, list[tuple[float, Pair]]] = {}
            deadline = self.start + share * self.budget
            for kind, pair in interleaved(kinds)[:most]:
                if time.process_time() > deadline:
                    self.complete = False
                    break
                energy = self.try_one(pair, loops, deadline)
                reached.setdefault(kind, []).append((energy, pair))
                self.tried += loops == ROUNDS[0][0]
            kinds = cheapest_first(reached)

    def accurate(self, kinds: dict[Kind, list[Pair]]) -> dict[Kind, list[Pair]]:
        """The unrollings that ZigZag counts well enough."""
        kept = {
            kind: [pair for pair in pairs if self.layer.unit_rounding(self.layer.spatial(pair)[0]) <= ROUNDING]
            for kind, pairs in kinds.items()
        }
        self.miscounted += sum(map(len, kinds.values())) - sum(map(len, kept.values()))
        return kept

    def try_one(self, pair: Pair, loops: int, deadline: float) -> float:
        """Search the loop orders over one unrolling; infinite if there is none, or if ZigZag miscounts it."""
        try:
            found = self.layer.best(pair, loops, ROUNDING, deadline)
        except SpatialMappingRefused:
            self.refused += 1
            return inf
        if found is None:
            return inf
        if self.undercounts(found):
            self.miscounted += 1
            return inf
        if self.best is None or found.energy < self.best.energy:
            self.best = found
        if found.exact and (self.best_exact is None or found.energy < self.best_exact.energy):
            self.best_exact = found
        return found.energy

    def undercounts(self, found: Found) -> bool:
        """Whether rounding of a fractional unrolling lost words that the layer cannot do without."""
        sizes = {operand: self.layer.node.operand_size_elem[LayerOperand(operand)] for operand in OPERANDS}
        dram = {operand: found.accesses[operand][-1] for operand in OPERANDS}
        counts = (
            (dram["I"]["to_inner"], sizes["I"]),
            (dram["W"]["to_inner"], sizes["W"]),
            (dram["O"]["from_inner"], sizes["O"]),
            (found.accesses["W"][0]["to_inner"], self.case.macs),
        )
        return any(count < (1 - SHORT) * needed for count, needed in counts)

    def record(self) -> Record:
        """What is stored of the case."""
        record: Record = {
            "case": self.case.name,
            "architecture": self.architecture.name,
            "dims": self.case.sizes,
            "stride": self.case.stride,
            "dilation": self.case.dilation,
            "macs": self.case.macs,
            "budget_cpu_seconds": self.budget,
            "cpu_seconds": round(time.process_time() - self.start, 2),
            "spatial_mappings_tried": self.tried,
            "spatial_mappings_miscounted": self.miscounted,
            "spatial_mappings_refused": self.refused,
            "search_complete": self.complete,
        }
        if self.best is None:
            return {**record, "error": "ZigZag found no mapping that fits the memories"}
        record |= self.describe(self.best)
        if self.best_exact is not None and not self.best.exact:
            record["best_exact"] = self.describe(self.best_exact)
        return record

    def describe(self, found: Found) -> Record:
        """Energy, accesses and mapping."""
        accesses: dict[str, dict[str, dict[str, int]]] = {memory.name: {} for memory in self.architecture.memories}
        total = self.architecture.mac_energy * self.case.macs
        for operand in OPERANDS:
            for memory, ways in zip(self.architecture.holding(operand), found.accesses[operand], strict=True):
                read, write = ways["to_inner"] + ways["to_outer"], ways["from_inner"] + ways["from_outer"]
                accesses[memory.name][operand] = {"read": read, "write": write, **ways}
                total += memory.energy * (read + write)
        full = self.layer.full_evaluation(found)
        if abs(total - found.energy) > 1e-9 * total or abs(full - found.energy) > 1e-9 * total:
            raise AssertionError(f"energies disagree: {total} from counts, {found.energy} searched, {full} in full")
        return {
            "energy": found.energy,
            "exact": found.exact,
            "rounding": found.rounding,
            "accesses": accesses,
            "mapping": mapping(found, self.architecture),
        }


def interleaved(kinds: dict[Kind, list[Pair]]) -> list[tuple[Kind, Pair]]:
    """The first of every kind, then the second of every kind, and so on."""
    turns = zip_longest(*([(kind, pair) for pair in pairs] for kind, pairs in kinds.items()))
    return [one for turn in turns for one in turn if one is not None]


def cheapest_first(reached: dict[Kind, list[tuple[float, Pair]]]) -> dict[Kind, list[Pair]]:
    """Kinds by their cheapest unrolling, the unrollings of each by energy; without those that do not fit."""
    ranked = {kind: sorted(ones, key=lambda one: one[0]) for kind, ones in reached.items()}
    order = sorted(ranked, key=lambda kind: ranked[kind][0][0])
    return {kind: [pair for energy, pair in ranked[kind] if energy < inf] for kind in order}


def mapping(found: Found, architecture: Architecture) -> dict[str, Any]:
    """The mapping in words of no tool. `inside` counts, for each memory but DRAM, the loops that run inside it."""
    loops = {operand: found.temporal.mapping_dic_stationary[LayerOperand(operand)] for operand in OPERANDS}
    orders = [[[dim.name, int(size)] for level in loops[operand] for dim, size in level] for operand in OPERANDS]
    if not orders[0] == orders[1] == orders[2]:
        raise AssertionError(f"operands disagree on the loop order: {orders}")
    inside = {
        operand: [sum(map(len, loops[operand][: level + 1])) for level in range(len(loops[operand]) - 1)]
        for operand in OPERANDS
    }
    rows, columns = found.unrolling
    fractional = {dim.name: float(size) for dim, size in found.spatial.spatial_loop_dim_size}
    twice = rows.keys() & columns.keys()
    return {
        "spatial": {
            axis: {dim: float(size) if dim in twice else fractional[dim] for dim, size in unrolling.items()}
            for axis, unrolling in (("rows", rows), ("columns", columns))
        },
        "spatial_integer": {"rows": rows, "columns": columns},
        "temporal": orders[0],
        "inside": inside,
        "memories": {operand: [memory.name for memory in architecture.holding(operand)[:-1]] for operand in OPERANDS},
    }


def main() -> None:
    """Run the cases that are not in the output file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file; cases in it are skipped")
    parser.add_argument("--only", default="*", help="case names as a pattern, such as 'resnet50/*'")
    parser.add_argument("--arch", choices=ARCHITECTURES, action="append", help="architecture; default all")
    parser.add_argument("--budget", type=float, default=60, help="CPU seconds for a case on an architecture")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    settings = {
        "optimized_for": "energy",
        "engine": "loma, uneven",
        "rounds": [dict(zip(("lpf_limit", "spatial_mappings", "budget_share"), one, strict=True)) for one in ROUNDS],
        "access_same_data_considered_as_no_access": False,
        "port_width": "one word",
    }
    results = ResultsFile(arguments.out, "zigzag-dse", version("zigzag-dse"), settings)
    cases = [case for case in ordered() if fnmatch.fnmatch(case.name, arguments.only)]
    for case in cases:
        for name in arguments.arch or ARCHITECTURES:
            if results.has(case.name, name):
                continue
            began = time.monotonic()
            search = Search(case, ARCHITECTURES[name], arguments.budget)
            search.run()
            record = {**search.record(), "wall_seconds": round(time.monotonic() - began, 2)}
            results.add(record)
            energy = record["energy"] / case.macs if "energy" in record else float("nan")
            print(f"{case.name:45} {name:18} {energy:10.4f} per MAC {record['cpu_seconds']:7.1f} s", flush=True)


if __name__ == "__main__":
    main()
