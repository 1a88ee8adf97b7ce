"""Cross-layer equalization of a model before it is calibrated: the same function, easier to quantize.

One pass over calibration samples measures the channels of every tensor that may be scaled (recovery/scale_domains.py),
recovery/equalize.py chooses the factors, and the constants around the tensors take them up. The model that comes back is
run beside the one that went in; where outputs differ by more than rounding, it is not used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from hwc_onnx.accuracy.runner import open_session
from hwc_onnx.accuracy.tensors import run_tensors
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.graph import external
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.recovery.equalize import Channels, factors, reader
from hwc_onnx.recovery.scale_domains import Domain, scale_domains

logger = logging.getLogger(__name__)

SAMPLES = 256
COMPARED = 8
TOLERANCE = 1e-4
"""Largest difference of outputs, relative to the largest magnitude of that output."""


Factors = Mapping[tuple[str, int], NDArray[np.float64]]
"""By (initializer, axis): what each position along the axis was multiplied by."""


@dataclass(frozen=True)
class Equalized:
    """The model, the domains that were scaled (0: the model is the one that was given) and what its constants took up."""

    proto: onnx.ModelProto
    domains: int = 0
    factors: Factors = field(default_factory=dict)


def equalize(proto: onnx.ModelProto, graph: LayerGraph, samples: Samples, *, threads: int | None = None) -> Equalized:
    """`proto` with the channels of its tensors scaled to use their quantizers alike.

    Args:
        proto: the normalised float model; not changed.
        graph: its layer graph.
        samples: calibration inputs, of which at most 256 are run.
        threads: ONNX Runtime threads.

    Raises:
        RuntimeFailure: ONNX Runtime cannot run the model.
    """
    if external.any_mapped(proto):
        return Equalized(proto)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    floats = {name: array for name, array in constants.items() if array.dtype == np.float32}
    domains = [found for found in scale_domains(graph, constants) if all(p.tensor in floats for p in found.constants)]
    used = samples.take(slice(0, SAMPLES))
    seen = _channels(proto, graph, domains, used, threads)
    found = _scaled(graph, domains, seen, floats)
    if not found:
        return Equalized(proto)
    changed, taken = _with(proto, floats, found)
    if same_outputs(proto, changed, used.take(slice(0, COMPARED)), threads):
        return Equalized(changed, len(found), taken)
    logger.warning("equalization changes what the model computes; it is left out")
    return Equalized(proto)


def same_outputs(first: onnx.ModelProto, second: onnx.ModelProto, samples: Samples, threads: int | None) -> bool:
    """Whether two models agree on `samples` but for rounding."""
    sessions = [open_session(model, threads, "all") for model in (first, second)]
    names = [value.name for value in first.graph.output]
    before, after = (session.run(samples.inputs, names) for session in sessions)
    return all(
        np.abs(a.astype(np.float64) - b).max(initial=0.0) <= TOLERANCE * max(float(np.abs(a).max(initial=0.0)), 1e-30)
        for a, b in zip(before, after, strict=True)
    )


def _channels(
    proto: onnx.ModelProto, graph: LayerGraph, domains: Iterable[Domain], samples: Samples, threads: int | None
) -> dict[str, Channels]:
    """The channels of all tensors of the domains, from one pass."""
    axes = {place.tensor: place.axis for domain in domains for place in domain.tensors}
    stored = {name for group in graph.activation_groups for name in group.tensors}
    names = sorted(name for name in axes if name in stored)
    sizes = {name: int(np.prod(graph.tensors[name].shape, dtype=np.int64)) for name in names}
    peaks: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for name, _, array in run_tensors(proto, samples, names, sizes, threads):
        flat = np.moveaxis(array, axes[name], 0).reshape(array.shape[axes[name]], -1)
        power = np.square(flat, dtype=np.float64).mean(axis=1) * len(array)
        peaks[name].append(np.stack([np.abs(flat).max(axis=1), flat.max(axis=1), power, np.full(len(flat), len(array))]))
    found = {}
    for name, parts in peaks.items():
        if parts:
            stack = np.stack(parts)
            found[name] = Channels(stack[:, 0].max(axis=0), stack[:, 1].max(axis=0), stack[:, 2].sum(0) / stack[:, 3].sum(0))
    return found


def _scaled(
    graph: LayerGraph,
    domains: Iterable[Domain],
    seen: Mapping[str, Channels],
    constants: Mapping[str, NDArray[np.float32]],
) -> list[tuple[Domain, NDArray[np.float64]]]:
    """The domains worth scaling, with their factors."""
    layers = {layer.key: layer for layer in graph.layers}
    found = []
    for domain in domains:
        weights = {place.tensor: place for place in domain.constants if place.power < 0}
        readers = []
        for key in domain.readers:
            layer = layers.get(key)
            if layer is not None and layer.weight in weights:
                place = weights[layer.weight]
                readers.append(reader(constants[layer.weight], place, layer.output_axis, domain.channels))
        chosen = factors(domain, seen, list(seen), readers)
        if chosen is not None:
            found.append((domain, chosen))
    return found


def _with(
    proto: onnx.ModelProto,
    constants: Mapping[str, NDArray[np.float32]],
    chosen: Iterable[tuple[Domain, NDArray[np.float64]]],
) -> tuple[onnx.ModelProto, Factors]:
    """A copy of the model whose constants have taken up the factors, and what each took up."""
    changed: dict[str, NDArray[np.float64]] = {}
    taken: dict[tuple[str, int], NDArray[np.float64]] = {}
    for domain, scale in chosen:
        for place in domain.constants:
            values = changed.get(place.tensor, constants[place.tensor].astype(np.float64))
            factor = np.where(place.index >= 0, scale[place.index], 1.0) ** place.power
            shape = [1] * values.ndim
            shape[place.axis] = -1
            changed[place.tensor] = values * factor.reshape(shape)
            taken[place.tensor, place.axis] = factor * taken.get((place.tensor, place.axis), 1.0)
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    for tensor in model.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name].astype(np.float32), tensor.name))
    return model, taken
