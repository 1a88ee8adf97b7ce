"""What the agent costs beside what it steers: processor time of a search, by what it was spent on.

    OMP_NUM_THREADS=1 python benchmarks/agent_time.py FOLDER
    OMP_NUM_THREADS=1 python benchmarks/agent_time.py FOLDER --models vit_tiny --search-samples 512 --trials 30

Each sampler searches the same problem (`edge-flex`, seed 0) in the same run. *measuring* is building and measuring candidates,
*refitting* the closing plans, *own* everything else that the search does, its first plans and its learning included. Processor time, so
that other work on the machine does not count; the first search of a folder also fills its cache of schedules, so a short one precedes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hwc_onnx
from hwc_onnx.search.study import run_search

SAMPLES = Path(__file__).parent.parent / "sample_models"


class Watched:
    """A problem whose measuring and refitting is timed."""

    def __init__(self, problem: Any) -> None:
        self._problem = problem
        self.seconds = {"measuring": 0.0, "refitting": 0.0}
        self.evaluate = self._timed(problem.evaluate, "measuring")
        self.refit = self._timed(problem.refit, "refitting")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._problem, name)

    def _timed(self, call: Callable[..., Any], what: str) -> Callable[..., Any]:
        def timed(*args: Any, **more: Any) -> Any:
            began = time.process_time()
            try:
                return call(*args, **more)
            finally:
                self.seconds[what] += time.process_time() - began

        return timed


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Processor time of the agent beside that of its candidates.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["resnet20"])
    parser.add_argument("--samplers", nargs="+", default=["composite", "knapsack"])
    parser.add_argument("--search-samples", type=int, nargs="+", default=[512, 3976])
    parser.add_argument("--trials", type=int, default=40)
    args = parser.parse_args()
    print(f"edge-flex, {args.trials} trials, seed 0: processor seconds")
    print(f"{'network':<18} {'samples':>7} {'sampler':<10} {'measuring':>9} {'refitting':>9} {'own':>6} {'own / both':>10}")
    for model in args.models:
        for size in args.search_samples:
            with hwc_onnx.open_problem(
                SAMPLES / f"{model}.onnx", data=SAMPLES / "fashion_mnist.npz", search_samples=size, run_dir=args.folder / f"{model}-{size}"
            ) as problem:
                run_search(problem, sampler="knapsack", trials=10, patience=0)
                for sampler in args.samplers:
                    watched = Watched(problem)
                    began = time.process_time()
                    run_search(watched, sampler=sampler, trials=args.trials, patience=0)
                    spent = sum(watched.seconds.values())
                    own = time.process_time() - began - spent
                    print(
                        f"{model:<18} {size:>7} {sampler:<10} {watched.seconds['measuring']:>9.1f} {watched.seconds['refitting']:>9.1f} "
                        f"{own:>6.1f} {own / spent:>10.2f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
