"""A folder with the files that the pages' examples name, small enough for each command to take a second."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from tests.cli.running import hwc
from tests.cli.tiny_case import tiny_case

READERS = {"c1": "conv1_output", "c2": "block1_output", "logits": "head"}
"""Names of layers in examples for a model of the reader's."""
RESNET = {"c1": "/0/0.0/Conv_output_0", "c2": "/1/second/second.0/Conv_output_0"}
"""Names of layers in examples for the sample models."""
FEWER = ["--calibration-samples", "64", "--search-samples", "128"]
SMALLER = {
    "compress": ["--trials", "2", *FEWER],
    "compare": ["--trials", "14", "--seeds", "1", "--jobs", "1", *FEWER],
    "why": ["--samples", "64", "--top", "1"],
    "sensitivity": ["--samples", "64"],
}
"""Options that keep a command short; a repeated option replaces the one on the page."""


def renamed(model: onnx.ModelProto, names: Mapping[str, str]) -> onnx.ModelProto:
    """A copy with other names for some tensors."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for node in made.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in made.graph.output:
        value.name = names.get(value.name, value.name)
    return made


def write_stand_ins(folder: Path) -> None:
    """Networks, samples, an accelerator file, and a finished run of `model.onnx` under three names."""
    model, samples = tiny_case(np.random.default_rng(0))
    (folder / "sample_models").mkdir()
    (folder / "build").mkdir()
    for path in ("model.onnx", "large.onnx"):
        onnx.save(renamed(model, READERS), folder / path)
    for name in ("resnet20", "mobilenetv2_small", "vit_tiny"):
        onnx.save(renamed(model, RESNET), folder / "sample_models" / f"{name}.onnx")
    for path in ("val.npz", "sample_models/fashion_mnist.npz"):
        np.savez(folder / path, **samples)
    (folder / "my-chip.yaml").write_text(hwc("accel", "template").stdout)
    first = hwc(*shorter(["compress", "model.onnx", "--data", "val.npz", "--max-drop", "1.0"]))
    assert first.exit_code in (0, 3), first.stderr
    for other in ("model-tpe.hwc", "model-random.hwc"):
        shutil.copytree(folder / "model.hwc", folder / other)


def shorter(words: Sequence[str], run_dir: str | None = None) -> list[str]:
    """A command of a page with the options that keep it short; `run_dir`: so that each search is one of its own."""
    added = [] if "--dry-run" in words else SMALLER.get(words[0], [])
    own = run_dir is not None and words[0] in ("compress", "compare") and not {"--from-run", "--config"} & set(words)
    return [*words, *added, *(["--run-dir", str(run_dir)] if own else [])]
