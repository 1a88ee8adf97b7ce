"""Sizes of the model's inputs: as declared, as given, or those of another axis with the same name.

Exporters name open axes. An axis with the name of one whose size is given has that size, and an axis with the name of a
first axis is the batch, wherever it stands: the state of a recurrent layer has it second. Names without a letter ("?",
"-1") and "None" name nothing. Nor does the name of a first axis that occurs twice in one input: the nodes of a graph with
its adjacency matrix are no batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from hwc_onnx.errors import ModelError

IMAGE_SIDE, LENGTH = 224, 128
"""Sizes that messages use as examples: of images [N, C, H, W], and of anything else."""


def batch_names(inputs: Sequence[onnx.ValueInfoProto]) -> set[str]:
    """Names of open first axes."""
    names = [[axis_name(dim) for dim in _dims(value)] for value in inputs]
    return {axes[0] for axes in names if axes and axes[0]} - {
        name for axes in names for name in axes if axes.count(name) > 1
    }


def settled(
    inputs: Sequence[onnx.ValueInfoProto], wanted: Mapping[str, Sequence[int]], batch: int
) -> dict[str, tuple[int, ...]]:
    """A static shape for each input; `wanted` may name some of them, and all others follow its batch.

    Raises:
        ModelError: an axis stays open, or a shape in `wanted` contradicts the model.
    """
    for value in inputs:
        if value.name in wanted and value.type.tensor_type.HasField("shape"):
            _check(value, wanted[value.name])
    given = [(dim, int(size)) for value in inputs for dim, size in zip(_dims(value), wanted.get(value.name, ()), strict=False)]
    firsts = [wanted[value.name][0] for value in inputs if value.name in wanted and _open_first(value)]
    batch = int(firsts[0]) if firsts else batch
    sizes = dict.fromkeys(batch_names(inputs), batch) | {axis_name(dim): size for dim, size in given if axis_name(dim)}
    shapes: dict[str, tuple[int, ...]] = {}
    left: list[onnx.ValueInfoProto] = []
    for value in inputs:
        if value.name in wanted:
            shapes[value.name] = tuple(int(size) for size in wanted[value.name])
        elif not value.type.tensor_type.HasField("shape"):
            raise ModelError(
                f"input '{value.name}': the model declares no shape; give one with --input-shape {value.name}:1x3x224x224"
            )
        else:
            found = [_size(dim, sizes, batch if axis == 0 else None) for axis, dim in enumerate(_dims(value))]
            shapes[value.name] = tuple(size or 0 for size in found)
            if None in found:
                left.append(value)
    if left:
        raise ModelError(_open_message(left, sizes))
    return shapes


def _dims(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)


def _open_first(value: onnx.ValueInfoProto) -> bool:
    dims = _dims(value)
    return bool(dims) and not dims[0].HasField("dim_value")


def axis_name(dim: onnx.TensorShapeProto.Dimension) -> str:
    """What names this axis, or ""."""
    name = str(dim.dim_param)
    return name if any(letter.isalpha() for letter in name) and name.lower() != "none" else ""


def _size(dim: onnx.TensorShapeProto.Dimension, sizes: Mapping[str, int], otherwise: int | None) -> int | None:
    return int(dim.dim_value) if dim.HasField("dim_value") else sizes.get(axis_name(dim), otherwise)


def _text(value: onnx.ValueInfoProto) -> str:
    return "x".join(str(dim.dim_value) if dim.HasField("dim_value") else "?" for dim in _dims(value))


def _check(value: onnx.ValueInfoProto, asked: Sequence[int]) -> None:
    name, dims, text = value.name, _dims(value), _text(value)
    if len(asked) != len(dims):
        raise ModelError(f"input '{name}': has {len(dims)} axes ({text}), but the shape given has {len(asked)}; give one size for each")
    for axis, (dim, size) in enumerate(zip(dims, asked, strict=True)):
        if dim.HasField("dim_value") and dim.dim_value != size:
            raise ModelError(
                f"input '{name}': axis {axis} is {dim.dim_value} in the model ({text}), but the shape given says {size}; "
                "leave that size as it is"
            )
        if size < 1:
            raise ModelError(f"input '{name}': axis {axis} of the shape given is {size}; sizes must be positive")


def _open_message(left: Sequence[onnx.ValueInfoProto], sizes: Mapping[str, int]) -> str:
    """Which axes are open, and the options that settle all of them; one option for axes of one name."""
    told, options = [], []
    known = dict(sizes)
    for value in left:
        dims = _dims(value)
        axes = [axis for axis, dim in enumerate(dims) if axis and _size(dim, sizes, None) is None]
        names = [f"{axis} ({axis_name(dims[axis])})" if axis_name(dims[axis]) else str(axis) for axis in axes]
        told.append(f"input '{value.name}': shape {_text(value)} leaves {'axes' if axes[1:] else 'axis'} {', '.join(names)} open")
        if any(_size(dims[axis], known, None) is None for axis in axes):
            example = IMAGE_SIDE if len(dims) == 4 else LENGTH
            # behind a first axis of fixed size the second is the batch, as in the state of a recurrent layer
            batch = 1 if dims[0].HasField("dim_value") and not axis_name(dims[min(1, len(dims) - 1)]) else 0
            shape = [_size(dim, known, 1 if axis in (0, batch) else example) for axis, dim in enumerate(dims)]
            known |= {axis_name(dim): size for dim, size in zip(dims, shape, strict=True) if axis_name(dim) and size}
            options.append(f"--input-shape {value.name}:{'x'.join(map(str, shape))}")
    return (
        f"{'; '.join(told)}; only the first axis (batch) may stay dynamic. Settle {'them' if left[1:] else 'it'} with "
        f"{' '.join(options)} (with your sizes), or with --data FILE.npz of that size"
    )
