"""Damage: a smooth distance between a candidate's outputs and the original's, from which the search learns.

Accuracy moves in steps of one image; damage moves with every weight. For scores per class it is the mean divergence
KL(original || candidate) of the two distributions, otherwise the squared error relative to the original's mean square;
several outputs are averaged.

Of the original its outputs are kept as they are, in their own precision, and what is one number a position; the rest is
computed again for each part of the samples, since dense outputs (a class for each pixel) are large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.accuracy.outputs import F64, ClassOutput, Outputs, in_parts, unmasked


@dataclass(frozen=True)
class ClassReference:
    """One class output of the original: its values [N, ...], negative entropy and loss [N, P] at P positions."""

    output: ClassOutput
    values: NDArray[np.generic]
    negative_entropy: F64
    cross_entropy: F64 | None


@dataclass(frozen=True)
class PlainReference:
    """One plain output of the original, [N, ...], and its mean square per sample."""

    name: str
    values: NDArray[np.generic]
    mean_square: float


@dataclass(frozen=True)
class Divergence:
    """The original's side of the comparison; `labels` [N] allow the shift of cross-entropy."""

    parts: tuple[ClassReference | PlainReference, ...]
    labels: NDArray[np.int64] | None

    def __call__(self, outputs: Outputs, start: int) -> tuple[F64, F64]:
        """Damage and change of cross-entropy of each sample, [n] and [n], for samples `start` to `start + n - 1`."""
        damages, shift = [], None
        for part in self.parts:
            if isinstance(part, PlainReference):
                damages.append(_squared_error(part, outputs, start))
                continue
            values = outputs[part.output.name]
            logits = _positions(part.output.logits(values))
            stop = start + len(logits)
            normaliser = log_sum_exp(logits)
            probabilities = np.exp(_log_probabilities(part.output, part.values[start:stop]))
            crossed = np.einsum("npc,npc->np", probabilities, logits)
            divergence = part.negative_entropy[start:stop] - crossed + normaliser
            damages.append(np.maximum(divergence, 0.0).mean(axis=1))
            if shift is None and part.cross_entropy is not None and self.labels is not None:
                loss = normaliser[:, 0] - logits[np.arange(len(logits)), 0, self.labels[start:stop]]
                shift = loss - part.cross_entropy[start:stop, 0]
        damage = np.mean(damages, axis=0)
        return damage, np.zeros_like(damage) if shift is None else shift


def divergence_from(outputs: Outputs, classes: ClassOutput | None, labels: NDArray[np.generic] | None) -> Divergence:
    """Prepare the comparison with the original's `outputs` [N, ...].

    Args:
        outputs: the original's outputs; integer outputs are not compared.
        classes: the kind of class output the model has; all outputs of the same shape and kind are taken as such.
        labels: class labels [N]; others are ignored.
    """
    usable = None
    if classes is not None and labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu":
        usable = labels.astype(np.int64)
    parts: list[ClassReference | PlainReference] = []
    for name, values in outputs.items():
        if values.dtype.kind != "f":
            continue
        if classes is not None and name == classes.name:
            parts.append(_class_reference(values, classes, usable))
        else:
            squares = [(_flat(part) ** 2).sum(axis=1) for part in in_parts(values)]
            parts.append(PlainReference(name, values, max(float(np.concatenate(squares).mean()), 1e-30)))
    return Divergence(tuple(parts), usable)


def log_sum_exp(logits: F64) -> F64:
    """log(sum(exp(logits))) over the last axis, safe for large scores."""
    top = logits.max(axis=-1)
    total: F64 = np.exp(logits - top[..., None]).sum(axis=-1)
    result: F64 = top + np.log(total)
    return result


def _class_reference(
    values: NDArray[np.generic], classes: ClassOutput, labels: NDArray[np.int64] | None
) -> ClassReference:
    entropies, losses = [], []
    done = 0
    for part in in_parts(values):
        logs = _log_probabilities(classes, part)
        entropies.append(np.einsum("npc,npc->np", np.exp(logs), logs))
        if labels is not None and logs.shape[1] == 1:
            losses.append(-logs[np.arange(len(logs)), :, labels[done : done + len(logs)]])
        done += len(logs)
    return ClassReference(classes, values, np.concatenate(entropies), np.concatenate(losses) if losses else None)


def _log_probabilities(output: ClassOutput, values: NDArray[np.generic]) -> F64:
    """[n, P, C] of the outputs of n samples."""
    logits = _positions(output.logits(values))
    return logits - log_sum_exp(logits)[..., None]


def _squared_error(part: PlainReference, outputs: Outputs, start: int) -> F64:
    values = outputs[part.name]
    error: F64 = ((_flat(values) - _flat(part.values[start : start + len(values)])) ** 2).sum(axis=1)
    return error / part.mean_square


def _flat(values: NDArray[np.generic]) -> F64:
    """[n, ...] as [n, elements] in double precision, zero where masked."""
    return unmasked(values.reshape(len(values), -1).astype(np.float64))


def _positions(logits: F64) -> F64:
    """[N, ..., C] as [N, positions, C]."""
    return logits.reshape(len(logits), -1, logits.shape[-1])
