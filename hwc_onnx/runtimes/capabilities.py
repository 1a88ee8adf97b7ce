"""Where a file runs and agrees: one row for each runtime and optimisation level, one for each of TensorRT's rules.

Outputs are compared with ONNX Runtime's without optimisations. The same bounds hold as between its levels
(level_agreement.py): what is beyond them is systematic and not a rounding that fell the other way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.accuracy.runner import open_session, run
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import RuntimeFailure
from hwc_onnx.graph.external import any_mapped
from hwc_onnx.graph.quant_nodes import quant_nodes
from hwc_onnx.level_agreement import (
    LEVEL_DISAGREEMENT,
    LEVEL_TOLERANCE,
    Check,
    LevelResult,
    relative_error,
    same_largest,
)
from hwc_onnx.quantization.dialects import DIALECT_KEY
from hwc_onnx.runtimes.elsewhere import Precision, in_openvino, in_qonnx, installed
from hwc_onnx.runtimes.tensorrt_rules import check_rules

Status = Literal["runs", "as QDQ", "differs", "fails", "not installed", "not tried", "met", "broken"]

OPENVINO_SAMPLES, QONNX_SAMPLES = 256, 8
"""Samples that the other runtimes are given; qonnx opens a session for each node."""

_PRECISIONS: tuple[Precision, ...] = ("float32", "default")


@dataclass(frozen=True)
class Capability:
    """What a file does in one runtime at one level, or whether it keeps one rule.

    `relative_error` and `agreement` (share of samples with the same largest output) are against ONNX Runtime without
    optimisations; None where nothing was run. `version` is empty for what is not installed, and for rules.
    """

    runtime: str
    version: str
    level: str
    status: Status
    found: str
    relative_error: float | None = None
    agreement: float | None = None


def onnxruntime_rows(levels: Sequence[LevelResult], rewritten: bool) -> Iterator[Capability]:
    """ONNX Runtime's levels; a file with Quant nodes is `rewritten` before it can open."""
    number = installed("onnxruntime")
    for level in levels:
        if not level.opens:
            yield Capability("ONNX Runtime", number, level.level, "fails", level.message)
            continue
        status = _status(level.relative_error, level.agreement)
        found = "its Quant nodes as QDQ" if rewritten else ""
        status = "as QDQ" if rewritten and status == "runs" else status
        yield Capability(
            "ONNX Runtime", number, level.level, status, found, level.relative_error, level.agreement
        )


def openvino_rows(
    file: onnx.ModelProto,
    runnable: onnx.ModelProto,
    samples: Samples,
    reference: Mapping[str, NDArray[Any]],
    threads: int | None,
    precisions: Sequence[Precision] = _PRECISIONS,
) -> Iterator[Capability]:
    """OpenVINO on the CPU, float32 wherever it does not compute on integers, and as it chooses by itself.

    Args:
        file: what was written.
        runnable: the same as ONNX Runtime opens it.
        samples: inputs; the first 256 are used.
        reference: outputs of `runnable` for all samples, without optimisations.
        threads: for ONNX Runtime and for OpenVINO.
        precisions: the settings to try.
    """
    number = installed("openvino")
    for precision in precisions:
        if not number:
            yield Capability("OpenVINO", "", precision, "not installed", "pip install openvino")
        elif any_mapped(file):
            yield Capability("OpenVINO", number, precision, "not tried", "a model of more than 1 GB is not handed over")
        else:
            yield _compared("OpenVINO", number, precision, file, runnable, samples, reference, threads)


def qonnx_row(
    file: onnx.ModelProto,
    runnable: onnx.ModelProto,
    samples: Samples,
    reference: Mapping[str, NDArray[Any]],
    threads: int | None,
) -> Capability:
    """The qonnx package on a file with Quant nodes; arguments as for `openvino_rows`, the first 8 samples are used."""
    number = installed("qonnx")
    if not quant_nodes(file):
        return Capability("qonnx", number, "node by node", "not tried", "the file has no Quant nodes")
    if not number:
        return Capability("qonnx", "", "node by node", "not installed", "pip install qonnx")
    return _compared("qonnx", number, "node by node", file, runnable, samples, reference, threads)


def tensorrt_rows(file: onnx.ModelProto) -> Iterator[Capability]:
    """TensorRT's published rules; nothing is run."""
    for rule in check_rules(file):
        more = f"; {len(rule.broken) - 1} more" if len(rule.broken) > 1 else ""
        found = rule.demand if rule.met else f"{rule.broken[0]}{more}"
        yield Capability("TensorRT rules", "", rule.name, "met" if rule.met else "broken", found)


def _compared(
    runtime: str,
    number: str,
    level: str,
    file: onnx.ModelProto,
    runnable: onnx.ModelProto,
    samples: Samples,
    reference: Mapping[str, NDArray[Any]],
    threads: int | None,
) -> Capability:
    few = samples.take(slice(0, OPENVINO_SAMPLES if runtime == "OpenVINO" else QONNX_SAMPLES))
    try:
        session = open_session(runnable, threads, "disable")
        if runtime == "OpenVINO":
            other = in_openvino(file, session, "float32" if level == "float32" else "default")
        else:
            other = in_qonnx(file, session)
        found = run(other, few)
    except RuntimeFailure as failure:
        return Capability(runtime, number, level, "fails", str(failure))
    expected = {name: values[: len(few)] for name, values in reference.items()}
    error, agreement = relative_error(expected, found), same_largest(expected, found)
    apart = [np.abs(expected[name] - found[name]).max(initial=0.0) for name in expected if expected[name].dtype.kind == "f"]
    most = float(max(apart, default=0.0))
    text = f"{len(few)} samples, outputs equal" if error == 0 else f"{len(few)} samples, largest difference {most:.2g}"
    if other.on_integers is not None:
        whole, all_layers = other.on_integers
        text += f", {whole} of {all_layers} layers on integers" + (f", others in {other.real_type}" if whole < all_layers else "")
    return Capability(runtime, number, level, _status(error, agreement, len(few)), text, error, agreement)


def _status(error: float, agreement: float, count: int = 0) -> Status:
    """Whether outputs are within what roundings make of them; one sample of a few may change sides."""
    allowed = max(LEVEL_DISAGREEMENT, 1 / count if count else 0.0) + 1e-9
    return "runs" if error <= LEVEL_TOLERANCE and 1 - agreement <= allowed else "differs"


def dialect_of(file: onnx.ModelProto) -> str:
    """The dialect that a file says it is written in, `ort` where it says nothing."""
    return next((entry.value for entry in file.metadata_props if entry.key == DIALECT_KEY), "ort")


def dialect_check(file: onnx.ModelProto, rows: Sequence[Capability]) -> Check | None:
    """Whether the file does what its dialect is for, as far as that can be seen here; None for dialects of ONNX Runtime."""
    name = dialect_of(file)
    if name == "tensorrt":
        rules = [row for row in rows if row.runtime == "TensorRT rules"]
        broken = [row for row in rules if row.status == "broken"]
        found = "; ".join(f"{row.level}: {row.found}" for row in broken[:3])
        text = found or f"{len(rules)} published rules are met by the file's structure; TensorRT itself was not run"
        return Check("dialect tensorrt", not broken, text)
    mine = [row for row in rows if row.runtime == {"openvino": "OpenVINO", "qonnx": "qonnx"}.get(name)]
    if not mine:
        return None
    row = mine[0]
    if row.status in ("not installed", "not tried") and not (name == "qonnx" and not quant_nodes(file)):
        return Check(f"dialect {name}", True, f"{row.runtime} is {row.status}: computed in ONNX Runtime alone")
    figures = "" if row.relative_error is None else f", relative difference {row.relative_error:.2g}"
    return Check(f"dialect {name}", row.status == "runs", f"{row.runtime} {row.version} {row.status}: {row.found}{figures}")
