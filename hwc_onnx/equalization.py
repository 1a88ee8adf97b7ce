"""Equalization of a model before it is calibrated: the same function, easier to quantize.

One pass over calibration samples measures the channels of every tensor that may be scaled (recovery/scale_domains.py,
recovery/attention_domains.py) or moved (recovery/shifts.py). Channels are moved first, then recovery/equalize.py chooses
factors, and the constants around the tensors take both up. The model that comes back is run beside the one that went in;
where outputs differ by more than rounding, it is not used.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from hwc_onnx.accuracy.inputs import input_specs
from hwc_onnx.accuracy.runner import open_session, run
from hwc_onnx.accuracy.tensors import check_finite, fixed_batch, run_tensors
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.graph import external
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.recovery.attention_domains import attention_domains
from hwc_onnx.recovery.equalize import Channels, factors, product_factors, reader
from hwc_onnx.recovery.scale_domains import Domain, scale_domains
from hwc_onnx.recovery.shifts import Movable, made_up, movable_tensors, shift

logger = logging.getLogger(__name__)

KINDS = ("equalize", "attention", "absorb")
"""What can be done, by the names that plans have for it."""
SAMPLES = 256
COMPARED = 8
TOLERANCE = 1e-4
"""Largest difference of outputs, relative to the largest magnitude of that output."""


Factors = Mapping[tuple[str, int], NDArray[np.float64]]
"""By (initializer, axis): what each position along the axis was multiplied by."""


@dataclass(frozen=True)
class Equalized:
    """The model, how many domains were scaled and how many tensors moved (0 and 0: the model is the one that was given), and
    what its constants were multiplied with.
    """

    proto: onnx.ModelProto
    domains: int = 0
    moved: int = 0
    factors: Factors = field(default_factory=dict)


def equalize(
    proto: onnx.ModelProto,
    graph: LayerGraph,
    samples: Samples,
    *,
    kinds: Collection[str] = KINDS,
    threads: int | None = None,
) -> Equalized:
    """`proto` with the channels of its tensors scaled and moved to use their quantizers alike.

    Args:
        proto: the normalised float model; not changed.
        graph: its layer graph.
        samples: calibration inputs, of which at most 256 are run.
        kinds: "equalize" scales channels across layers, "attention" those of queries, keys and values, "absorb" moves
            channels into the biases behind them.
        threads: ONNX Runtime threads.

    Raises:
        DataError: values that are NaN or infinite.
        RuntimeFailure: ONNX Runtime cannot run the model.
    """
    if external.any_mapped(proto):
        return Equalized(proto)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    floats = {name: array for name, array in constants.items() if array.dtype == np.float32}
    domains = scale_domains(graph, constants) if "equalize" in kinds else []
    domains += attention_domains(graph, constants) if "attention" in kinds else []
    domains = [found for found in domains if all(place.tensor in floats for place in found.constants)]
    movable = movable_tensors(graph, floats) if "absorb" in kinds else []
    axes = {place.tensor: place.axis for domain in domains for place in domain.tensors}
    axes |= {found.tensor: found.axis for found in movable}
    used = samples.take(slice(0, SAMPLES))
    seen = _channels(proto, graph, axes, used, threads)
    values = _Touched(floats)
    moved = _moved(graph, movable, seen, values)
    seen |= {name: seen[name].moved(by) for name, by in moved.items()}
    found = _scaled(graph, domains, seen, floats)
    if not found and not moved:
        return Equalized(proto)
    taken = _take_up(values, found)
    changed = _with(proto, {name: array for name, array in values.items() if (array != floats[name]).any()})
    if same_outputs(proto, changed, used.take(slice(0, COMPARED)), threads):
        return Equalized(changed, len(found), len(moved), taken)
    logger.warning("equalization changes what the model computes; it is left out")
    return Equalized(proto)


class _Touched(dict[str, NDArray[np.float64]]):
    """Constants in float64, each from when it is first asked for: of a large model most are not."""

    def __init__(self, stored: Mapping[str, NDArray[np.float32]]) -> None:
        super().__init__()
        self._stored = stored

    def __missing__(self, name: str) -> NDArray[np.float64]:
        self[name] = self._stored[name].astype(np.float64)
        return self[name]


def same_outputs(first: onnx.ModelProto, second: onnx.ModelProto, samples: Samples, threads: int | None) -> bool:
    """Whether two models agree on `samples` but for rounding."""
    before, after = (run(open_session(model, threads, "all"), samples) for model in (first, second))
    return all(
        np.abs(a.astype(np.float64) - after[name].astype(np.float64)).max(initial=0.0)
        <= TOLERANCE * max(float(np.abs(a).max(initial=0.0)), 1e-30)
        for name, a in before.items()
    )


def _channels(
    proto: onnx.ModelProto, graph: LayerGraph, axes: Mapping[str, int], samples: Samples, threads: int | None
) -> dict[str, Channels]:
    """The channels of the stored tensors of `axes` (channel axis by name), from one pass."""
    stored = {name for group in graph.activation_groups for name in group.tensors}
    names = sorted(name for name in axes if name in stored)
    sizes = {name: int(np.prod(graph.tensors[name].shape, dtype=np.int64)) for name in names}
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    fixed = fixed_batch(input_specs(proto))
    for name, at, array in run_tensors(proto, samples, names, sizes, threads):
        check_finite(proto, graph, samples, fixed, name, at, array)
        flat = np.moveaxis(array, axes[name], 0).reshape(array.shape[axes[name]], -1)
        sums = (flat.mean(axis=1, dtype=np.float64), np.square(flat, dtype=np.float64).mean(axis=1))
        parts[name].append(np.stack([flat.min(axis=1), flat.max(axis=1), *sums, np.full(len(flat), len(array))]))
    found = {}
    for name, batches in parts.items():
        if batches:
            low, top, mean, power, count = np.stack(batches, axis=1)
            share = count / count.sum(axis=0)
            found[name] = Channels(low.min(axis=0), top.max(axis=0), (mean * share).sum(0), (power * share).sum(0))
    return found


def _moved(
    graph: LayerGraph,
    movable: Iterable[Movable],
    seen: Mapping[str, Channels],
    constants: dict[str, NDArray[np.float64]],
) -> dict[str, NDArray[np.float64]]:
    """What the channels of each tensor are moved by, where that is worth it; `constants` take it up."""
    moved = {}
    for found in movable:
        by = shift(found, seen[found.tensor].low, seen[found.tensor].top) if found.tensor in seen else None
        if by is None or len(by) != constants[found.bias].size:
            continue
        moved[found.tensor] = by
        constants[found.bias] = constants[found.bias] - by
        for key in found.readers:
            layer = graph.layer(key)
            assert layer.weight is not None and layer.bias is not None
            constants[layer.bias] = constants[layer.bias] + made_up(layer, constants[layer.weight], by)
    return moved


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
        opposed = any(place.power < 0 for place in domain.tensors)
        chosen = product_factors(domain, seen) if opposed else factors(domain, seen, list(seen), readers)
        if chosen is not None:
            found.append((domain, chosen))
    return found


def _take_up(
    constants: dict[str, NDArray[np.float64]], chosen: Iterable[tuple[Domain, NDArray[np.float64]]]
) -> dict[tuple[str, int], NDArray[np.float64]]:
    """Multiply the constants around the domains by their factors; what each took up."""
    taken: dict[tuple[str, int], NDArray[np.float64]] = {}
    for domain, scale in chosen:
        for place in domain.constants:
            values = constants[place.tensor]
            factor = np.where(place.index >= 0, scale[place.index], 1.0) ** place.power
            shape = [1] * values.ndim
            shape[place.axis] = -1
            constants[place.tensor] = values * factor.reshape(shape)
            taken[place.tensor, place.axis] = factor * taken.get((place.tensor, place.axis), 1.0)
    return taken


def _with(proto: onnx.ModelProto, changed: Mapping[str, NDArray[np.float64]]) -> onnx.ModelProto:
    """A copy of the model with other constants."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    for tensor in model.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name].astype(np.float32), tensor.name))
    return model
