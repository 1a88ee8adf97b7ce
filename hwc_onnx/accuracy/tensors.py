"""Looking inside a running model: intermediate tensors leave ONNX Runtime as extra outputs.

Only the nodes that the wanted tensors need are run, and so many tensors at a time as memory allows.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.accuracy.inputs import InputSpec, input_specs
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import DataError, HwcError, RuntimeFailure
from hwc_onnx.graph.layer_graph import Layer, LayerGraph
from hwc_onnx.graph.model_view import reads
from hwc_onnx.quantization.histogram import StreamingHistogram
from hwc_onnx.quantization.quantizer import QuantParams
from hwc_onnx.recovery.patches import along_batch

GROUP_BYTES = 128 << 20
"""Extra outputs of one session stay below this many bytes per batch, a single tensor too unless one sample of it is larger."""

SMALLEST_BATCH = 4
"""Batches are made smaller, down to this, before tensors are spread over sessions, each of which runs the model again."""


def run_tensors(
    proto: onnx.ModelProto,
    samples: Samples,
    names: Sequence[str],
    sizes: Mapping[str, int],
    threads: int | None = None,
    batch: int = 64,
) -> Iterator[tuple[str, range, NDArray[np.float32]]]:
    """Yield (tensor name, places of the batch's samples, array) for every batch and every tensor in `names`.

    `sizes` are elements per sample, from which the number of tensors per session follows. A model with a fixed batch
    gets whole batches only.

    Raises:
        DataError: fewer samples than the model's fixed batch.
        RuntimeFailure: ONNX Runtime cannot run the model.
    """
    from hwc_onnx.accuracy.runner import open_session

    specs = input_specs(proto)
    fixed = fixed_batch(specs)
    if fixed is not None:
        check_fills(fixed, len(samples))
    fed = {spec.name for spec in specs}
    made = [name for name in names if name not in fed]
    step = fixed or _batch_for(made, sizes, batch)
    last = len(samples) - (len(samples) % fixed if fixed else 0)
    for group in _memory_groups(made, sizes, step):
        session = open_session(with_outputs(proto, group), threads=threads, level="fake_quant", spread="operators")
        for first in range(0, last, step):
            read = {spec.name for spec in session.inputs}
            feed = {spec.name: spec.fed(samples.inputs[spec.name][first : first + step]) for spec in specs if spec.name in read}
            try:
                arrays = session.ort.run(group, {**feed, **session.constants})
            except Exception as error:
                raise RuntimeFailure(
                    f"calibration: ONNX Runtime failed on samples {first} to {first + step - 1}: {error}; check that "
                    "the samples have the shapes and types of the model's inputs"
                ) from error
            for name, array in zip(group, arrays, strict=True):
                yield name, range(first, min(first + step, last)), np.asarray(array, dtype=np.float32)
    for name in names:
        if name in fed:
            for first in range(0, last, step):
                batch_at = range(first, min(first + step, last))
                yield name, batch_at, np.asarray(samples.inputs[name][first : batch_at.stop], dtype=np.float32)


def fixed_batch(specs: Sequence[InputSpec]) -> int | None:
    """The number of samples that a model takes at once, None where it takes any."""
    return next((spec.shape[0] for spec in specs if spec.shape and spec.shape[0] is not None), None)


def check_fills(fixed: int, count: int) -> None:
    """Refuse fewer samples than one batch (DataError): nothing would be measured."""
    if count < fixed:
        raise DataError(
            f"the model has a fixed batch of {fixed} and there are {count} calibration samples; give at least {fixed} with "
            "--calibration-samples, more data, or export the model with a batch of 1 or an open one"
        )


def check_finite(
    proto: onnx.ModelProto,
    graph: LayerGraph,
    samples: Samples,
    fixed: int | None,
    name: str,
    batch: range,
    array: NDArray[np.float32],
) -> None:
    """Refuse values that are NaN or infinite in tensor `name` of a batch (DataError with the sample and the first node, in the
    order of the network, that makes such values of it).
    """
    if np.isfinite(array).all():
        return
    along = along_batch(array.shape, graph.tensors[name].shape, len(batch), fixed)
    where = f"one of the samples {samples.number(batch.start)} to {samples.number(batch.stop - 1)}"
    if along is not None:
        rest = tuple(axis for axis in range(array.ndim) if axis != along.axis)
        bad = np.flatnonzero(~np.isfinite(array).all(axis=rest)) // along.each
        where = f"calibration sample {samples.number(batch.start + int(bad[0]))} of the data, counted from 0"
    name = _first_bad(proto, graph, samples.take(slice(batch.start, batch.stop))) or name
    maker = next((node for node in graph.nodes if name in node.outputs), None)
    by = f"{maker.op_type} '{maker.name or maker.key}' gives" if maker is not None else f"input '{name}' has"
    raise DataError(
        f"{where}: {by} values that are NaN or infinite; check this sample and the weights around that node, or leave the "
        "sample out"
    )


def _first_bad(proto: onnx.ModelProto, graph: LayerGraph, samples: Samples) -> str | None:
    """The first tensor in the order of the network that is not finite on these samples, None where that cannot be told."""
    makers = {name for node in proto.graph.node for name in node.output}
    names = [node.outputs[0] for node in graph.nodes if node.outputs and node.outputs[0] in makers]
    names = [name for name in names if name in graph.tensors and graph.tensors[name].dtype.startswith("float")]
    sizes = {name: int(np.prod(graph.tensors[name].shape, dtype=np.int64)) for name in names}
    try:
        bad = {
            name for name, _, array in run_tensors(proto, samples, names, sizes, None, len(samples)) if not np.isfinite(array).all()
        }
    except HwcError:
        return None
    return next((name for name in names if name in bad), None)


def with_outputs(
    proto: onnx.ModelProto, names: Sequence[str], given: Sequence[onnx.ValueInfoProto] = ()
) -> onnx.ModelProto:
    """A model that computes exactly the tensors `names`, in that order, and nothing that they do not need.

    Tensors in `given` are inputs of the new model wherever it would have to compute them.
    """
    nodes, needed = needed_nodes(proto, names, {value.name for value in given})
    made = {name for node in nodes for name in node.output}
    cut = onnx.ModelProto()
    cut.CopyFrom(
        onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import, functions=proto.functions)
    )
    cut.graph.name = proto.graph.name or "graph"
    cut.graph.node.extend(nodes)
    cut.graph.input.extend(value for value in proto.graph.input if value.name in needed)
    cut.graph.input.extend(value for value in given if value.name in needed - made)
    cut.graph.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name in needed)
    cut.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return cut


def needed_nodes(
    proto: onnx.ModelProto, names: Iterable[str], given: Container[str] = ()
) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that compute `names` from the model's inputs and `given`, in order, and every tensor they touch."""
    needed = set(names)
    wanted = {name for name in needed if name not in given}
    nodes = []
    for node in reversed(proto.graph.node):
        if wanted.intersection(node.output):
            read = set(reads(node))
            needed |= read
            wanted.update(name for name in read if name not in given)
            nodes.append(node)
    return nodes[::-1], needed


def _batch_for(names: Sequence[str], sizes: Mapping[str, int], batch: int) -> int:
    """The largest batch up to `batch` with which all of `names` fit into one session, but no less than SMALLEST_BATCH where
    that many samples of each tensor fit.
    """
    per_image = 4 * sum(sizes.get(name, 0) for name in names)
    largest = max((sizes.get(name, 0) for name in names), default=0)
    return batch_within(largest, min(batch, max(SMALLEST_BATCH, GROUP_BYTES // max(per_image, 1))))


def batch_within(elements: int, batch: int) -> int:
    """The largest batch up to `batch` of which a tensor of `elements` per sample takes at most GROUP_BYTES; at least 1."""
    return min(batch, max(GROUP_BYTES // max(4 * elements, 1), 1))


def _memory_groups(names: Sequence[str], sizes: Mapping[str, int], batch: int) -> list[list[str]]:
    """Split `names` so that one batch of each part stays below GROUP_BYTES (a single large tensor stands alone)."""
    groups: list[list[str]] = []
    used = 0
    for name in names:
        size = 4 * batch * sizes.get(name, 0)
        if not groups or used + size > GROUP_BYTES:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += size
    return groups


def read_by(proto: onnx.ModelProto, graph: LayerGraph, layer: Layer) -> str:
    """The tensor that feeds `layer` in `proto`, which may be a rewritten model: there it is the dequantized one.

    Raises:
        RuntimeFailure: the layer is not in the model.
    """
    original = next(node for node in graph.nodes if node.key == layer.key)
    position = original.inputs.index(layer.inputs[0])
    producer = {name: node for node in proto.graph.node for name in node.output}
    node = producer.get(layer.key)
    if node is not None and node.op_type == "Add" and layer.op_type != "Add":
        node = producer.get(node.input[0])
    if node is None or node.op_type != layer.op_type:
        raise RuntimeFailure(f"layer '{layer.key}' ({layer.op_type}) is not in the rewritten model; this is our bug, please report it")
    return str(node.input[position])


def measured_densities(
    proto: onnx.ModelProto,
    graph: LayerGraph,
    samples: Samples,
    activations: Mapping[str, QuantParams],
    threads: int | None = None,
    batch: int = 64,
) -> dict[str, float]:
    """Share of values of each stored tensor in `activations` that its quantizer does not make zero, in `proto`."""
    sizes = {name: int(np.prod(graph.tensors[name].shape, dtype=np.int64)) for name in activations}
    histograms = {name: StreamingHistogram() for name in activations}
    for name, _, array in run_tensors(proto, samples, sorted(activations), sizes, threads, batch):
        histograms[name].update(array)
    return {name: histogram.density(activations[name]) for name, histogram in histograms.items() if histogram.total}
