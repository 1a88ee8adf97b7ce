"""Two models side by side in ONNX Runtime, so that a wrong rewrite cannot go unnoticed.

Operators that ONNX Runtime does not implement are taken out of both: what they make is fed, what they read is compared.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.errors import ModelError, RuntimeFailure
from hwc_onnx.graph.compared import compared_values
from hwc_onnx.graph.domains import foreign_nodes
from hwc_onnx.graph.infer import NotRunnable, Shapes, declared_shapes, input_shapes_of, run_model

logger = logging.getLogger(__name__)

RTOL, ATOL = 1e-4, 1e-5
NUDGE = 1e-6
"""Share by which inputs are changed to see whether an output depends on the last digits."""


Feeds = dict[str, NDArray[Any]]


def random_feeds(proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]], seed: int = 0) -> Feeds:
    """Standard normal values for float inputs, 0 or 1 for integer and boolean ones, "a" for strings.

    An integer input that the model compares with a constant is that constant (`graph/compared.py`).
    """
    tested = compared_values(proto)
    rng = np.random.default_rng(seed)
    feeds: Feeds = {}
    for value in proto.graph.input:
        if value.name in shapes:
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
            drawn = _drawn(dtype, tuple(shapes[value.name]), rng)
            feeds[value.name] = np.full_like(drawn, tested[value.name]) if value.name in tested else drawn
    return feeds


def _drawn(dtype: np.dtype[Any], shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    if dtype.kind == "O":
        return np.full(shape, "a", object)
    # bfloat16 is of kind V
    drawn = rng.standard_normal(shape) if dtype.kind in "fV" else rng.integers(0, 2, shape)
    return np.asarray(drawn).astype(dtype)


def compare(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    input_shapes: Mapping[str, Sequence[int]] | None,
    slack: float,
    rounding: bool = False,
) -> None:
    """Check that `after` computes what `before` does, for a batch of 2, or of 1 where 2 does not run.

    `slack` multiplies the tolerance. With `rounding`, integer kernels became quantizers around float ones, whose sums
    round differently: outputs may differ by 2 % in the mean square, or by one step of their own grid.

    Raises:
        ModelError: `before` does not run in ONNX Runtime; its reason is quoted.
        RuntimeFailure: `after` does not, or computes something else (our bug).
    """
    tried = _runnable(before, input_shapes)
    try:
        found = _run(after, tried)
    except NotRunnable as error:
        raise RuntimeFailure(
            f"normalization made a model that ONNX Runtime refuses ({error}); please report it with the model"
        ) from error
    for name, expected in tried.expected.items():
        if not _agree(expected, found[name], slack, rounding):
            if not same_values(expected, tried.again(name, 0.0), slack):
                logger.warning("output '%s' is random: two runs of the same model differ, so it was not compared", name)
                continue
            if not same_values(expected, tried.again(name, NUDGE), slack):
                logger.warning(
                    "output '%s' hangs on the last digits: inputs changed by a millionth change it as much (nearly tied "
                    "scores behind TopK or ArgMax, say), so it was not compared",
                    name,
                )
                continue
            raise RuntimeFailure(f"normalization changed output '{name}'; please report it with the model")


def _agree(first: NDArray[Any], second: NDArray[Any], slack: float, rounding: bool) -> bool:
    if same_values(first, second, slack):
        return True
    if not rounding or first.shape != second.shape or first.dtype.kind != "f":
        return False
    difference = np.abs(first.astype(np.float64) - second)
    power = float(np.mean(np.square(first.astype(np.float64))))
    if float(np.mean(np.square(difference))) <= 0.02**2 * max(power, 1e-12):
        return True
    # an output on a coarse grid: sums that end halfway go either way, by one step, and not all of them
    step = float(np.diff(np.unique(first.astype(np.float64))).min(initial=np.inf))
    return bool(difference.max(initial=0.0) <= 1.01 * step and difference.mean() <= step / 3)


def same_values(first: NDArray[Any], second: NDArray[Any], slack: float = 1.0) -> bool:
    """Equal within `slack` times (rtol 1e-4 and 1e-5 of the largest magnitude, at least 1); NaN equals NaN."""
    if not isinstance(first, np.ndarray) or first.dtype.kind != "f":
        return bool(np.array_equal(first, second))
    if first.shape != second.shape:
        return False
    finite = np.abs(first[np.isfinite(first)])
    largest = float(finite.max()) if finite.size else 1.0
    return bool(np.allclose(first, second, rtol=slack * RTOL, atol=slack * ATOL * max(1.0, largest), equal_nan=True))


class _Tried:
    """A run of the model before: feeds by place, and the values seen by place ("output y", "operand 0 of n")."""

    def __init__(self, proto: onnx.ModelProto, feeds: Feeds, made: Mapping[str, NDArray[Any]]) -> None:
        self.made = made
        self.part, self.names, places = _part(proto, made)
        self.feeds = {**feeds, **_foreign_feeds(proto, made)}
        values = run_model(self.part, self.feeds, self.names)
        self.inputs = feeds
        self.expected = {place: values[name] for place, name in places.items()}
        self._names = places

    def again(self, place: str, share: float) -> NDArray[Any]:
        """The value at a place in another run, with real inputs changed at random by this share of themselves."""
        rng = np.random.default_rng(2)
        feeds = {
            name: (array * (1 + share * rng.choice([-1, 1], array.shape))).astype(array.dtype)
            if array.dtype.kind == "f"
            else array
            for name, array in self.feeds.items()
        }
        name = self._names[place]
        return run_model(self.part, feeds, [name])[name]


def _runnable(before: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]] | None) -> _Tried:
    reasons = []
    for batch in (2, 1):
        shapes = input_shapes_of(before, input_shapes, batch)
        try:
            feeds = random_feeds(before, shapes)
        except (MemoryError, ValueError) as error:
            raise ModelError(f"model: inputs of sizes {_sizes(shapes)} do not fit into memory ({error}); give smaller ones with --input-shape") from error
        try:
            return _Tried(before, feeds, _stand_ins(before, declared_shapes(before, shapes)))
        except NotRunnable as error:
            reasons.append(str(error))
    raise ModelError(
        f"model: does not open or run in ONNX Runtime for inputs {_sizes(shapes)}: {reasons[-1]}; "
        "repair it or export it again until onnxruntime runs it"
    )


def _sizes(shapes: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())


def _run(after: onnx.ModelProto, tried: _Tried) -> Feeds:
    part, names, places = _part(after, tried.made)
    values = run_model(part, {**tried.inputs, **_foreign_feeds(after, tried.made)}, names)
    return {place: values[name] for place, name in places.items()}


def _stand_ins(proto: onnx.ModelProto, shapes: Shapes) -> dict[str, NDArray[Any]]:
    """Random values for what foreign nodes make, by place ("0 of n"); only where the model declares the shape."""
    rng = np.random.default_rng(1)
    made = {}
    for node in foreign_nodes(proto):
        for place, name in enumerate(node.output):
            if name in shapes:
                shape, kind = shapes[name]
                dtype = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(kind.upper()))
                made[f"{place} of {node.name}"] = _drawn(np.dtype(dtype), shape, rng)
    return made


def _foreign_feeds(proto: onnx.ModelProto, made: Mapping[str, NDArray[Any]]) -> Feeds:
    return {
        name: made[f"{place} of {node.name}"]
        for node in foreign_nodes(proto)
        for place, name in enumerate(node.output)
        if f"{place} of {node.name}" in made
    }


def _part(
    proto: onnx.ModelProto, made: Mapping[str, NDArray[Any]]
) -> tuple[onnx.ModelProto, list[str], dict[str, str]]:
    """The model without its foreign nodes, the tensors to ask for, and their names by place."""
    outputs = {f"output {value.name}": value.name for value in proto.graph.output}
    foreign = foreign_nodes(proto)
    if not foreign:
        return proto, list(outputs.values()), {place.removeprefix("output "): name for place, name in outputs.items()}
    part = onnx.ModelProto()
    part.CopyFrom(proto)
    names = {node.output[0] for node in foreign}
    kept = [node for node in proto.graph.node if node.output[0] not in names]
    del part.graph.node[:]
    part.graph.node.extend(kept)
    fed = _foreign_feeds(proto, made)
    for name, array in fed.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        part.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
    known = {value.name for value in part.graph.input} | {tensor.name for tensor in part.graph.initializer} | {""}
    for node in kept:
        if known.issuperset(node.input):
            known.update(node.output)
    computed = {name for node in kept for name in node.output}
    places = {**outputs}
    for node in foreign:
        places.update({f"operand {place} of {node.name}": name for place, name in enumerate(node.input)})
    places = {place: name for place, name in places.items() if name in known and name in computed}
    del part.opset_import[:]
    part.opset_import.extend(entry for entry in proto.opset_import if entry.domain in {n.domain for n in kept} | {"", "ai.onnx"})
    return part, list(dict.fromkeys(places.values())), places
