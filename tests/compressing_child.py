"""A whole compression in a process of its own, to be killed: `python -m tests.compressing_child FOLDER TRIALS [OBJECTIVE]`.

Prints a line for each trial.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import hwc_onnx
from hwc_onnx.events import Event, TrialDone
from tests.cli.tiny_case import tiny_case


def compress(folder: Path, trials: int, objective: str = "energy") -> None:
    """The same run whenever it is called with the same folder."""
    model, samples = tiny_case(np.random.default_rng(0))
    limits = {"max_energy": 0.6} if objective == "drop" else {"max_drop": 60.0}

    def tell(event: Event) -> None:
        if isinstance(event, TrialDone):
            print(event.evaluations, flush=True)

    hwc_onnx.compress(
        model, data=samples, output=folder / "out.onnx", trials=trials, objective=objective, gate="point", on_event=tell, **limits
    )


if __name__ == "__main__":
    compress(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
