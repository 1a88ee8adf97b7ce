"""A model with some inputs turned into constants, and with the branches of its Ifs that these choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from hwc_onnx.export import Written, write_model
from hwc_onnx.graph.fixed_inputs import FixedInput, fix_inputs
from hwc_onnx.graph.loading import load_model
from hwc_onnx.job.compression import check_output
from hwc_onnx.normalize.branches import with_branches_taken


@dataclass(frozen=True)
class Fixed:
    """The model, the inputs that are constants now, the names of those that are left, and where it came from."""

    proto: onnx.ModelProto
    inputs: tuple[FixedInput, ...]
    left: tuple[str, ...]
    nodes_before: int
    source: Path | None

    def save(self, path: str | Path | None = None) -> Written:
        """Write the model; default `<stem>.fixed.onnx` in the current folder."""
        stem = "model" if self.source is None else self.source.stem
        target = Path(path) if path is not None else Path.cwd() / f"{stem}.fixed.onnx"
        check_output(target, self.source)
        return write_model(self.proto, target)

    def to_json(self, model: str, written: Written) -> dict[str, Any]:
        """The content of `fix --json`."""
        fixed = [
            {
                "name": one.name,
                "type": one.dtype,
                "shape": list(one.value.shape),
                "value": one.value.tolist(),
                "compared_with": list(one.compared_with),
                "odd": one.odd,
            }
            for one in self.inputs
        ]
        return {
            "schema": 1,
            "model": model,
            "fixed": fixed,
            "inputs": list(self.left),
            "nodes": {"before": self.nodes_before, "after": len(self.proto.graph.node)},
            "output": {"path": str(written.path), "file_bytes": written.file_bytes, "sha256": written.sha256},
        }


def fix(model: str | Path | onnx.ModelProto, values: Mapping[str, Any]) -> Fixed:
    """`model` with constants for some inputs (see `fix_inputs`); the argument is left alone.

    Raises:
        ModelError: the model cannot be read, or an input cannot be fixed.
        UsageError: an unknown input, or a value that does not fit it.
    """
    loaded = load_model(model)
    proto = onnx.ModelProto()
    proto.CopyFrom(loaded.proto)
    inputs = fix_inputs(proto, values)
    before = len(proto.graph.node)
    proto = with_branches_taken(proto)
    constants = {tensor.name for tensor in proto.graph.initializer}
    left = tuple(value.name for value in proto.graph.input if value.name not in constants)
    return Fixed(proto, inputs, left, before, loaded.path)
