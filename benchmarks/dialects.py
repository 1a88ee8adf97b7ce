"""Every dialect in the runtime that it is for, beside ONNX Runtime, on the sample networks.

    OMP_NUM_THREADS=1 HWC_ONNX_THREADS=1 python benchmarks/dialects.py [--models resnet20] [--samples 2000] [--folder DIR]

One plan for each model and setting is written in every dialect that takes it, with recovery `ranges`. Each file runs in ONNX
Runtime without optimisations and with all, and in the runtime that the dialect is for, on held-out samples:

file      kilobytes
top1      in ONNX Runtime without optimisations, which the differences are against
ort all   root-mean-square difference of the outputs with all optimisations, relative to the outputs
differs   the same of the dialect's runtime; OpenVINO in float32 wherever it does not compute on integers
same      share of samples with the same answer there
top1      there; qonnx runs on 16 samples, because it opens a session for each node, too few for an accuracy
integers  OpenVINO: its products that compute on 8-bit integers; qonnx: integers of all Quant nodes in its run that differ
          from round(x / scale) + zero point of the same inputs; TensorRT: published rules that the file's structure keeps
default   OpenVINO as it is without a setting: the type of what is not on integers, and the difference

Needs the extra dev.
"""

from __future__ import annotations

import argparse
import tempfile
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
    "w4a16": ("ort", "openvino", "tensorrt"),
}
QONNX_SAMPLES = 16
HEAD = f"{'setting':<8}{'dialect':<9}{'file':>7}{'top1':>8}{'ort all':>9}  {'runtime':<9}{'differs':>8}{'same':>9}{'top1':>8}  {'integers':<16}default"


def line(path: Path, dialect: str, samples: Samples) -> str:
    """One file in ONNX Runtime and in the runtime of its dialect."""
    loaded, file = load_model(path), onnx.load(path)
    session = open_session(loaded.proto, 1, "disable")
    reference = run(session, samples)

    def top1(found: dict[str, Any]) -> str:
        assert samples.labels is not None
        return f"{float(np.mean(next(iter(found.values())).argmax(axis=1) == samples.labels)):.2%}"

    optimised = relative_error(reference, run(open_session(loaded.proto, 1, "all"), samples))
    text = f"{top1(reference):>8}{optimised:>9.1g}"
    if dialect in ("ort", "openvino"):
        plain, default = in_openvino(file, session, "float32"), in_openvino(file, session, "default")
        assert plain.on_integers is not None
        found, other = run(plain, samples), run(default, samples)
        integers = "{} of {} layers".format(*plain.on_integers)
        text += f"  {'OpenVINO':<9}{relative_error(reference, found):>8.1g}{same_largest(reference, found):>9.2%}{top1(found):>8}"
        return text + f"  {integers:<16}{default.real_type} {relative_error(reference, other):.1g}"
    if dialect == "qonnx":
        few = samples.take(slice(0, QONNX_SAMPLES))
        found, expected = run(in_qonnx(file, session), few), {name: values[: len(few)] for name, values in reference.items()}
        text += f"  {'qonnx':<9}{relative_error(expected, found):>8.1g}{same_largest(expected, found):>9.2%}{'':>8}"
        return text + "  {} of {}".format(*differing(file, session, few))
    if dialect == "tensorrt":
        rules = check_rules(file)
        return text + f"  {'not run':<34}  {sum(rule.met for rule in rules)} of {len(rules)} rules"
    return text


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


def subset(path: Path, count: int) -> Path:
    """The data with so many held-out samples: `apply` measures all that it is given."""
    with np.load(DATA) as data:
        arrays = {name: values[:count] if name.endswith("_holdout") else values for name, values in data.items()}
    np.savez(path, **arrays)
    return path


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
    part = subset(folder / "samples.npz", options.samples)
    for model in options.models:
        source = ROOT / "sample_models" / f"{model}.onnx"
        data = load_samples(part, load_model(source).proto, None, None)
        assert data.holdout is not None
        samples = data.holdout.samples().take(slice(0, options.samples))
        print(f"\n{model}, {len(samples)} held-out samples\n{HEAD}")
        for setting in options.settings:
            for dialect in (name for name in SETTINGS[setting] if name in options.dialects):
                applied = api.apply_plan(
                    source, plan=api.uniform_plan(source, setting), data=part, recovery="ranges", dialect=dialect
                )
                written = applied.save(folder / f"{model}.{setting}.{dialect}.onnx")
                shown = f"{setting:<8}{dialect:<9}{written.file_bytes / 1000:>7.1f}" + line(written.path, dialect, samples)
                print(shown.rstrip(), flush=True)


if __name__ == "__main__":
    main()
