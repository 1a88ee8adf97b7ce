"""The energy model beside ZigZag and AccelForge: accuracy and speed in one run, with the shipped defaults.

    OMP_NUM_THREADS=1 python benchmarks/energy.py                     # all recorded pairs, then speed
    OMP_NUM_THREADS=1 python benchmarks/energy.py --only resnet50
    OMP_NUM_THREADS=1 python benchmarks/energy.py --write docs/energy-validation.md

The other tools run in environments of their own and leave JSON files (benchmarks/reference/README.md); other layers are
compared by adding them to `cases.py` there. Columns: energy of ZigZag's best mapping; the same mapping counted here, its
energy and its worst access count of any memory and operand, with ZigZag's two rules of `zigzag_rules.py`; the best
mapping found here, and its energy over the best of any tool; CPU time of both searches. An energy marked * is of a
mapping with fractional unrolls, which ZigZag rounds; the same mapping is then its best without fractions.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path

from energy_pairs import REFERENCE, Pair, pairs
from energy_timing import timing_lines

BEGIN, END = "<!-- energy:begin -->", "<!-- energy:end -->"


def pair_lines(found: list[Pair]) -> Iterator[str]:
    """The table of all pairs, and what it comes to by architecture."""
    yield (
        f"{'layer':38} {'ZigZag':>11} {'same':>7} {'counts':>7} {'AccelF.':>10} {'own':>10} {'own/best':>8} {'ZigZag s':>8} {'own ms':>7}"
    )
    for architecture in dict.fromkeys(pair.architecture for pair in found):
        yield architecture
        rows = [pair for pair in found if pair.architecture == architecture]
        for pair in rows:
            third = f"{pair.accelforge:10.4g}" if pair.accelforge else f"{'-':>10}"
            same_text = f"{pair.same:7.4f} {100 * pair.counts:6.2f}%" if pair.same is not None else f"{'-':>7} {'-':>7}"
            yield (
                f"{pair.case:38} {pair.zigzag:10.4g}{' ' if pair.exact else '*'} {same_text} {third} "
                f"{pair.own.total:10.4g} {pair.own.total / pair.reference:8.4f} {pair.zigzag_s:8.1f} {1e3 * pair.own_s:7.1f}"
            )
        counted = [pair for pair in rows if pair.same is not None]
        same = [abs((pair.same or 0.0) - 1) for pair in counted]
        whole = [pair for pair in counted if not pair.fraction]
        best = [pair.own.total / pair.reference for pair in rows]
        alone = [pair.own.total / pair.zigzag for pair in rows]
        raw = [abs(pair.same_raw - 1) for pair in counted]
        yield (
            f"  {len(rows)} layers. Same mapping, {len(counted)} of them: within {100 * max(same):.3f} % in energy, every count within "
            f"{100 * max(p.counts for p in counted):.2f} %, and {100 * max((p.counts for p in whole), default=0.0):.2f} % for the "
            f"{len(whole)} without fractions"
        )
        yield (
            f"  without ZigZag's rules for new sums and shared rows: within {100 * max(raw):.2f} % in energy, mean {100 * statistics.mean(raw):.2f} %"
        )
        yield (
            f"  own mapping over the best of all tools: mean {statistics.mean(best):.4f}, worst {max(best):.4f}; over ZigZag alone: "
            f"mean {statistics.mean(alone):.4f}"
        )
        network = [pair for pair in rows if pair.case.startswith("resnet50/")]
        if network:
            theirs, ours = sum(p.zigzag_s for p in network), sum(p.own_s for p in network)
            yield f"  ResNet-50, {len(network)} shapes: ZigZag {theirs:.0f} s, own {ours:.2f} s ({theirs / ours:.0f} times)"
        yield (
            f"  search: median {1e3 * statistics.median(p.own_s for p in rows):.1f} ms, ZigZag {statistics.median(p.zigzag_s for p in rows):.0f} s "
            f"({statistics.median(p.zigzag_s / p.own_s for p in rows):.0f} times); its search ended by itself for "
            f"{sum(p.complete for p in rows)} of {len(rows)}"
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Compare the energy model with other tools, and time it.")
    parser.add_argument("--only", default="", help="layers whose name contains this")
    parser.add_argument("--zigzag", type=Path, default=REFERENCE / "results" / "zigzag.json")
    parser.add_argument("--accelforge", type=Path, default=REFERENCE / "results" / "accelforge.json")
    parser.add_argument("--skip-speed", action="store_true")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the output between the marks of this page")
    args = parser.parse_args()
    printed = []

    def show(line: str) -> None:
        print(line, flush=True)
        printed.append(line)

    found, missing = [], []
    for pair in pairs(args.zigzag, args.accelforge, args.only):
        if isinstance(pair, Pair):
            found.append(pair)
        else:
            missing.append(pair)
    for line in pair_lines(found):
        show(line)
    missing += [f"{p.case} on {p.architecture}, same mapping: {p.refused} (ZigZag rounds a fraction)" for p in found if p.refused]
    for text in missing:
        show(f"not compared: {text}")
    if not args.skip_speed:
        for line in timing_lines():
            show(line)
    if args.write:
        page = args.write.read_text()
        head, rest = page.split(BEGIN)
        args.write.write_text(head + BEGIN + "\n```\n" + "\n".join(printed) + "\n```\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
