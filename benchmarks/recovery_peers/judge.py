"""The same judgement for every file, ours or not: what it answers on the holdout, against labels and the float model.

Files are opened by ONNX Runtime at its default level, with the options that all sessions of this project have
(hwc_onnx/accuracy/runner.py): 8-bit products do not saturate on old CPUs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.accuracy.pool import Data
from hwc_onnx.accuracy.runner import open_session, run
from hwc_onnx.accuracy.splits import make_splits
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.workspace import load_samples, open_float_model

Row = dict[str, Any]


class Judge:
    """One model with its data: the float model's answers, and those of files made from it.

    `judged` has samples, in turn from each of a number of photographs, to judge by instead of the holdout of `data`.
    """

    def __init__(self, model: Path, data: Path, judged: Path | None = None) -> None:
        self.model, self.path = model, data
        proto = open_float_model(model).proto
        self.data: Data = load_samples(str(data), proto, None, None)
        if judged is None:
            self.holdout: Samples = make_splits(self.data).holdout
            self.photographs = None
        else:
            self.holdout = load_samples(str(judged), proto, None, None).pool.samples()
            with np.load(judged) as arrays:
                self.photographs = int(arrays["photographs"])
        self.answers = self._answers(model)
        self.labels = None if self.holdout.labels is None else self.holdout.labels.astype(np.int64)

    def file(self, path: Path) -> Row:
        """The figures of one file: loss and disagreement in percent points, `same` per sample as a text of 0 and 1."""
        answers = self._answers(path)
        same = answers == self.answers
        row: Row = {"disagreement": 100 * float(1 - same.mean()), "bytes": path.stat().st_size}
        if self.labels is None:
            row |= {"same": "".join("01"[int(value)] for value in same), "photographs": self.photographs}
        else:
            right = [float((given == self.labels).mean()) for given in (self.answers, answers)]
            row |= {"top1": 100 * right[1], "drop": 100 * (right[0] - right[1])}
        return row

    def calibration(self, seed: int) -> tuple[dict[str, NDArray[np.generic]], str]:
        """The calibration inputs of a split seed as the model reads them, and their digest."""
        splits = make_splits(self.data, seed)
        return dict(splits.calibration.inputs), splits.calibration_digest

    def _answers(self, path: Path) -> NDArray[np.int64]:
        outputs = run(open_session(path), self.holdout)
        return next(iter(outputs.values())).argmax(axis=1)
