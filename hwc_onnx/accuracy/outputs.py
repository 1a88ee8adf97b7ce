"""What the outputs of a model are: scores per class, or plain numbers.

Scores per class (logits or probabilities) are compared as distributions; everything else by its distance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.errors import DataError, UsageError
from hwc_onnx.plugins import nearest

Outputs = Mapping[str, NDArray[np.generic]]
F64 = NDArray[np.float64]

TASKS: Mapping[str, int | None] = {"classification": -1, "segmentation": 1, "regression": None}
"""Task name -> the axis of the classes in an output [N, ...], None for plain numbers."""

PART_BYTES = 64 << 20
"""What is in double precision at once, for each of the few arrays that a comparison makes."""
_TINY_PROBABILITY = 1e-12
_LOWEST_LOGIT = -1e6
"""Classes masked with minus infinity stay comparable."""


@dataclass(frozen=True)
class ClassOutput:
    """An output with scores per class: its name, the axis of the classes, and whether they are already probabilities."""

    name: str
    axis: int
    classes: int
    probabilities: bool

    def logits(self, values: NDArray[np.generic]) -> F64:
        """Unnormalised log probabilities with the classes on the last axis, [..., classes]."""
        scores = np.moveaxis(values, self.axis, -1).astype(np.float64)
        if self.probabilities:
            return np.log(np.maximum(scores, _TINY_PROBABILITY))
        return np.maximum(scores, _LOWEST_LOGIT)

    def answers(self, values: NDArray[np.generic]) -> NDArray[np.int64]:
        """The most probable class, [N, ...] without the class axis."""
        places: NDArray[np.int64] = np.argmax(values, axis=self.axis).astype(np.int64)
        return places


def check_task(task: str | None) -> None:
    """Refuse an unknown task (UsageError with the nearest name)."""
    if task is not None and task not in TASKS:
        raise UsageError(f"unknown task '{task}'{nearest(task, list(TASKS))}; choose from {', '.join(TASKS)}")


def class_output(outputs: Outputs, task: str | None = None, labelled: bool = False) -> ClassOutput | None:
    """The first output that holds scores per class, or None.

    Without a task that is a float output [N, classes] with two or more classes, unless its values lie in 0..1 without
    adding up to one (several yes-or-no answers) and the samples are not `labelled` with one class each. A softmax inside
    the graph is recognised by its values.
    """
    check_task(task)
    if task is not None and TASKS[task] is None:
        return None
    for name, values in outputs.items():
        axis = -1 if task is None else TASKS[task]
        if axis is None or values.dtype.kind != "f" or values.ndim < 2 or values.shape[axis] < 2:
            continue
        if task is None and values.ndim != 2:
            continue
        bounded = all(part.min() >= -1e-6 and part.max() <= 1 + 1e-6 for part in in_parts(values))
        probabilities = bounded and all(_add_up_to_one(part, axis) for part in in_parts(values))
        if task is None and bounded and not probabilities and not labelled:
            continue
        return ClassOutput(name, axis, values.shape[axis], probabilities)
    return None


def looks_like_scores(values: NDArray[np.generic]) -> bool:
    """Whether the last axis of an output [N, ...] holds probabilities of two or more classes."""
    if values.dtype.kind != "f" or values.ndim < 2 or values.shape[-1] < 2:
        return False
    return all(part.min() >= 0 and _add_up_to_one(part, -1, 1e-3) for part in in_parts(values))


def _add_up_to_one(scores: NDArray[Any], axis: int, within: float = 1e-2) -> bool:
    return bool(np.abs(scores.sum(axis=axis, dtype=np.float64) - 1).max() < within)


def in_parts(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The rows of `values`, so many at a time as take `PART_BYTES` in double precision."""
    each = 8 * max(int(np.prod(values.shape[1:], dtype=np.int64)), 1)
    step = max(PART_BYTES // each, 1)
    for start in range(0, len(values), step):
        yield values[start : start + step]


def unmasked(values: F64) -> F64:
    """Zero in place of minus infinity, which stands for what is left out: it has no distance."""
    return np.where(np.isneginf(values), 0.0, values) if np.isneginf(values).any() else values


def float_outputs(outputs: Outputs) -> dict[str, F64]:
    """Every float output flattened to [N, elements], in double precision, zero where it is masked with minus infinity.

    Raises:
        DataError: there is none, as where a model ends in ArgMax.
    """
    found = {
        name: unmasked(values.reshape(len(values), -1).astype(np.float64))
        for name, values in outputs.items()
        if values.dtype.kind == "f"
    }
    if not found:
        raise DataError(
            f"outputs {', '.join(outputs)}: whole numbers only, which have no distance; give labels or a metric of your own "
            "(--metric module:function), or export the model without its last ArgMax"
        )
    return found
