"""Every dialect in the runtime that it is for, beside ONNX Runtime, on the sample networks.

    OMP_NUM_THREADS=1 HWC_ONNX_THREADS=1 python benchmarks/dialects.py [--models resnet20] [--samples 2000] [--folder DIR]

One plan for each model and setting is written in every dialect that takes it, with recovery `ranges`. Each file then runs
in ONNX Runtime without optimisations and with all, and in the runtime that the dialect is for, on held-out samples:

file        kilobytes
top1        of the runtime named in that row, in percent
difference  root-mean-square difference of its outputs from ONNX Runtime's without optimisations, relative to these
same        share of samples with the same answer
integers    OpenVINO: its products that compute on 8-bit integers; qonnx: integers of all Quant nodes that differ from
            round(x / scale) + zero point of the same inputs; TensorRT: published rules that the file's structure keeps

qonnx runs on 16 samples, because it opens a session for each node. Needs the extra dev.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from qonnx.core.onnx_exec import execute_onnx

from hwc_onnx import api
from hwc_onnx.accuracy.runner import Session, open_session, run
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.graph.loading import load_model
from hwc_onnx.graph.quant_nodes import quant_nodes
from hwc_onnx.level_agreement import relative_error, same_largest
from hwc_onnx.quantization.dialects import DIALECTS
from hwc_onnx.runtimes.elsewhere import for_qonnx, in_openvino, in_qonnx
from hwc_onnx.runtimes.tensorrt_rules import check_rules
from hwc_onnx.workspace import load_samples

ROOT = Path(__file__).parents[1]
DATA = ROOT / "sample_models" / "fashion_mnist.npz"
MODELS = ("resnet20", "vgg_small", "mobilenetv2_small", "vit_tiny")
SETTINGS = {
    "w8a8": ("ort", "openvino", "qcdq", "qonnx", "tensorrt"),
    "w4a8": ("ort", "openvino", "qcdq", "qonnx", "tensorrt"),
    "w4a4": ("ort", "openvino", "qcdq", "qonnx"),
    "w2a4": ("ort", "openvino", "qcdq", "qonnx"),
    "w4a16": ("ort", "openvino", "tensorrt"),
}
QONNX_SAMPLES = 16


def rows(path: Path, dialect: str, samples: Samples) -> Iterator[tuple[str, float, float, float, str]]:
    """(runtime, top1, difference, same, integers) of one file in each runtime."""
    loaded, file = load_model(path), onnx.load(path)
    session = open_session(loaded.proto, 1, "disable")
    reference = run(session, samples)

    def row(name: str, found: dict[str, Any], integers: str, count: int) -> tuple[str, float, float, float, str]:
        expected = {key: values[:count] for key, values in reference.items()}
        answers = next(iter(found.values())).argmax(axis=1)
        assert samples.labels is not None
        top1 = 100 * float(np.mean(answers == samples.labels[:count]))
        return name, top1, relative_error(expected, found), same_largest(expected, found), integers

    yield row("ONNX Runtime, disable", reference, "", len(samples))
    yield row("ONNX Runtime, all", run(open_session(loaded.proto, 1, "all"), samples), "", len(samples))
    if dialect in ("ort", "openvino"):
        for precision in ("float32", "default"):
            other = in_openvino(file, session, precision)
            name = f"OpenVINO, {precision}" + ("" if other.real_type == "f32" else f" ({other.real_type})")
            assert other.on_integers is not None
            yield row(name, run(other, samples), "{} of {}".format(*other.on_integers), len(samples))
    if dialect == "qonnx":
        few = samples.take(slice(0, QONNX_SAMPLES))
        yield row("qonnx", run(in_qonnx(file, session), few), "{} of {}".format(*differing(file, session, few)), len(few))
    if dialect == "tensorrt":
        rules = check_rules(file)
        print(" " * 34 + f"TensorRT rules             {sum(rule.met for rule in rules)} of {len(rules)} met, not run")


def differing(file: onnx.ModelProto, session: Session, samples: Samples) -> tuple[int, int]:
    """Of the integers that the qonnx package makes in one run: how many differ from ours for the same inputs, and how many are."""
    feeds = {spec.name: samples.inputs[spec.name] for spec in session.inputs}
    context = execute_onnx(for_qonnx(file, feeds), dict(feeds), return_full_exec_context=True)
    wrong = total = 0
    for node in quant_nodes(file):
        values, scale, zero = (context[name] for name in node.input[:3])
        bits, signed = int(context[node.input[3]]), next(entry.i for entry in node.attribute if entry.name == "signed")
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        ours = np.clip(np.rint(values / scale) + zero, low, high)
        theirs = np.rint(context[node.output[0]] / scale + zero)
        wrong, total = wrong + int(np.count_nonzero(ours != theirs)), total + ours.size
    return wrong, total


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--dialects", nargs="+", default=list(DIALECTS), choices=list(DIALECTS))
    parser.add_argument("--samples", type=int, default=2000, help="held-out samples")
    parser.add_argument("--folder", type=Path, help="keep the files here")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    for model in options.models:
        source = ROOT / "sample_models" / f"{model}.onnx"
        data = load_samples(DATA, load_model(source).proto, None, None)
        assert data.holdout is not None
        samples = data.holdout.samples().take(slice(0, options.samples))
        print(f"\n{model}: {len(samples)} held-out samples")
        print(f"{'setting':<8} {'dialect':<10} {'file':>7}      {'runtime':<26} {'top1':>6} {'difference':>10} {'same':>7}  integers")
        for setting in options.settings:
            for dialect in (name for name in SETTINGS[setting] if name in options.dialects):
                applied = api.apply_plan(
                    source, plan=api.uniform_plan(source, setting), data=DATA, recovery="ranges", dialect=dialect
                )
                written = applied.save(folder / f"{model}.{setting}.{dialect}.onnx")
                print(f"{setting:<8} {dialect:<10} {written.file_bytes / 1000:>7.1f}")
                for name, top1, error, same, integers in rows(written.path, dialect, samples):
                    print(f"{'':<33} {name:<26} {top1:>5.2f}% {error:>10.2g} {same:>7.2%}  {integers}", flush=True)


if __name__ == "__main__":
    main()
