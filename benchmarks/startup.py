"""How long the command line takes to answer, against starting Python.

    python benchmarks/startup.py [--runs 15]

Prints the medians of `hwc-onnx --help`, of `hwc-onnx compress --help` and of an empty Python program, and the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "hwc-onnx --help": ["-m", "hwc_onnx", "--help"],
    "hwc-onnx compress --help": ["-m", "hwc_onnx", "compress", "--help"],
}


def seconds(words: list[str]) -> float:
    """Wall-clock time of one start."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, check=True)
    return time.perf_counter() - started


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Time the command line's answer to --help.")
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs):
        for name, words in COMMANDS.items():
            taken[name].append(seconds(words))
    empty = statistics.median(taken["python -c pass"])
    for name, values in taken.items():
        middle = statistics.median(values)
        print(f"{name:<26} median {middle:.3f} s of {runs}, {middle / empty:.1f} times an empty Python program")


if __name__ == "__main__":
    main()
