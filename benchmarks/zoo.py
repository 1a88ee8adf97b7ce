"""The zoo: many architectures through inspect, profile, channel removal and mixed QDQ, one line each.

    OMP_NUM_THREADS=1 python benchmarks/zoo.py FOLDER
    OMP_NUM_THREADS=1 python benchmarks/zoo.py FOLDER --only '*net*' --write docs/zoo.md

FOLDER holds the files that `benchmarks/zoo/export.py` wrote; the light models of the `onnx` package are added. Each model
runs in a process of its own with a time limit, so that a crash is a line of the table. Columns: nodes, layers, channel
groups and locked ones of them; the share of weights that can be pruned structurally, here and by torch-pruning
(benchmarks/zoo/README.md); each step, `ok` or what it raised; seconds. Results are kept in FOLDER/results.json, from
which --table prints without running anything.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import onnx

CHECK = Path(__file__).parent / "zoo" / "check.py"
TORCH_PRUNING = Path(__file__).parent / "zoo" / "results" / "torch_pruning.json"
STEPS = ("inspect", "profile", "masked", "remove", "qdq", "both")
BEGIN, END = "<!-- zoo:begin -->", "<!-- zoo:end -->"
Row = dict[str, Any]


def models(folder: Path, only: str) -> list[Path]:
    """The exported files and the light models of the `onnx` package."""
    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    found = sorted(folder.glob("*.onnx"), key=lambda path: path.stat().st_size) + sorted(light.glob("*.onnx"))
    return [path for path in found if fnmatchcase(path.stem, only)]


def check(path: Path, seconds: float, until: str) -> Row:
    """Run one model in its own process and gather what it printed before it ended."""
    row: Row = {"steps": {}}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        environment = dict(os.environ) | {"PYTHONPATH": str(CHECK.parents[2])}
        process = subprocess.Popen(
            [sys.executable, str(CHECK), str(path), until], stdout=out, stderr=err, env=environment
        )
        ending = None
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            ending = f"Timeout: not done after {seconds:.0f} s"
        out.seek(0)
        for found in (json.loads(text) for text in out.read().splitlines() if text.startswith("{")):
            if "step" in found:
                row["steps"][found.pop("step")] = found
            else:
                row |= found
        if process.returncode and ending is None:
            err.seek(0)
            last = (err.read().strip().splitlines() or [""])[-1]
            ending = f"Crash: exit {process.returncode}: {last[:300]}"
    missing = [step for step in STEPS[: STEPS.index(until) + 1] if step not in row["steps"]]
    if ending and missing:
        row["steps"][missing[0]] = {"seconds": 0.0, "error": ending, "where": None}
    return row


def line(name: str, row: Row, torch: Row | None) -> str:
    """One model in the table."""
    cells = []
    for step in STEPS:
        result = row["steps"].get(step)
        cells.append("-" if result is None else "ok" if result["error"] is None else _kind(result["error"]))
    theirs = "-" if torch is None else f"{100 * torch['share']:.1f}"
    ours = f"{100 * row['share']:.1f}" if "share" in row else "-"
    seconds = sum(result["seconds"] for result in row["steps"].values())
    counts = f"{row.get('nodes', 0):5} {row.get('layers', 0):6} {row.get('groups', 0):6} {len(row.get('locked', [])):6}"
    return f"{name:38} {counts} {ours:>6} {theirs:>6}  " + " ".join(f"{cell:8}" for cell in cells) + f" {seconds:5.0f}"


HEAD = f"{'model':38} {'nodes':>5} {'layers':>6} {'groups':>6} {'locked':>6} {'ours':>6} {'t-p':>6}  " + " ".join(
    f"{step:8}" for step in (*STEPS,)
)


def summary(rows: dict[str, Row], torch: dict[str, Row]) -> Iterator[str]:
    """Counts, the comparison with torch-pruning, and failures by cause."""
    good = [name for name, row in rows.items() if all(_passed(row, step) for step in STEPS)]
    yield f"{len(good)} of {len(rows)} models pass every step; by step: " + ", ".join(
        f"{step} {sum(_passed(row, step) for row in rows.values())}" for step in STEPS
    )
    both = {
        name: (rows[name]["share"], torch[name]["share"]) for name in rows if name in torch and "share" in rows[name]
    }
    if both:
        behind = {name: pair for name, pair in both.items() if pair[0] < pair[1] - 1e-3}
        means = [statistics.mean(pair[side] for pair in both.values()) for side in (0, 1)]
        yield (
            f"share of weights that can be pruned, {len(both)} architectures: mean {100 * means[0]:.1f} %, torch-pruning "
            f"{100 * means[1]:.1f} %; at least equal on {len(both) - len(behind)} ({100 * (1 - len(behind) / len(both)):.0f} %)"
        )
        for name, (ours, theirs) in sorted(behind.items(), key=lambda entry: entry[1][0] - entry[1][1]):
            yield f"  behind on {name}: {100 * ours:.1f} % against {100 * theirs:.1f} %"
            reasons = sorted(rows[name]["locked_weights"].items(), key=lambda entry: -entry[1])
            for reason, weights in reasons[:3]:
                yield f"    {100 * weights / rows[name]['weights']:.1f} % of the weights: {reason}"
    remarks = [name for name, row in rows.items() if any("remark" in result for result in row["steps"].values())]
    yield (
        f"files of 2 to 8 bits that differ between levels by more than 0.1, random weights and rounding: {len(remarks)} of "
        f"{len(rows)} models"
    )
    causes: dict[tuple[str, str], list[str]] = {}
    for name, row in rows.items():
        for step, result in row["steps"].items():
            if result["error"]:
                place = result["where"][-1].split(" ")[0].split(":")[0] if result["where"] else ""
                causes.setdefault((_kind(result["error"], 40), place), []).append(f"{name} ({step}): {result['error']}")
    for (kind, place), entries in sorted(causes.items(), key=lambda entry: -len(entry[1])):
        yield f"{len(entries)} times {kind}{' in ' + place if place else ''}"
        yield from (f"  {entry}" for entry in entries)


def _passed(row: Row, step: str) -> bool:
    return step in row["steps"] and row["steps"][step]["error"] is None


def _kind(error: str, width: int = 8) -> str:
    kind, _, rest = error.partition(": ")
    return (rest.partition(":")[0] if kind == "RuntimeError" else kind)[:width]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Run the zoo of architectures through hwc-onnx.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="*", help="names to run, as a glob")
    parser.add_argument("--missing", action="store_true", help="leave out models whose recorded steps all passed")
    parser.add_argument("--table", action="store_true", help="print recorded results, run nothing")
    parser.add_argument("--until", choices=STEPS, default=STEPS[-1], help="last step to run")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for one model")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the output between the marks of this page")
    args = parser.parse_args()
    record = args.folder / "results.json"
    rows: dict[str, Row] = json.loads(record.read_text()) if record.exists() else {}
    torch: dict[str, Row] = json.loads(TORCH_PRUNING.read_text()) if TORCH_PRUNING.exists() else {}
    printed = []

    def show(text: str) -> None:
        print(text, flush=True)
        printed.append(text)

    show(HEAD)
    chosen, wanted = models(args.folder, args.only), STEPS[: STEPS.index(args.until) + 1]
    for path in chosen:
        name = path.stem
        done = name in rows and (args.table or (args.missing and all(_passed(rows[name], step) for step in wanted)))
        if not done and not args.table:
            rows[name] = check(path, args.timeout, args.until)
            record.write_text(json.dumps(rows, indent=1))
        if name in rows:
            show(line(name, rows[name], torch.get(name)))
    for text in summary({path.stem: rows[path.stem] for path in chosen if path.stem in rows}, torch):
        show(text)
    if args.write:
        page = args.write.read_text()
        head, rest = page.split(BEGIN)
        args.write.write_text(head + BEGIN + "\n```\n" + "\n".join(printed) + "\n```\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
