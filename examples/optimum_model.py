"""Compress a model that Hugging Face Optimum exported; the folder that comes out opens in Optimum as the one that went in.

optimum-cli export onnx --model google/vit-base-patch16-224 vit_onnx
python examples/optimum_model.py vit_onnx samples.npz vit_small

Cells begin at `# %%`: an editor or Jupyter (through jupytext) runs them one by one.
"""

# %% What to compress; in a notebook, write the paths here in place of sys.argv
from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import hwc_onnx

FOLDER, SAMPLES, TARGET = (Path(argument) for argument in sys.argv[1:4])
TRIALS = int(sys.argv[4]) if len(sys.argv) > 4 else 200
MAX_DROP = float(sys.argv[5]) if len(sys.argv) > 5 else 1.0

# %% Samples: arrays named as the model's inputs (what the processor or tokenizer makes), or `images`: pixels [samples, channels, height, width]
# in the size that the model wants, which are prepared here with the numbers of preprocessor_config.json. Labels are `labels`, if there are any.
# Optimum leaves every axis open (batch, height, sequence length); hwc-onnx takes the sizes from the samples.
inputs = [tensor.name for tensor in onnx.load(FOLDER / "model.onnx", load_external_data=False).graph.input]
with np.load(SAMPLES, allow_pickle=False) as archive:
    arrays: dict[str, Any] = dict(archive)
data = {name: arrays[name] for name in inputs if name in arrays}
if "labels" in arrays:
    data["y"] = arrays["labels"]
if "images" in arrays:
    processor = json.loads((FOLDER / "preprocessor_config.json").read_text(encoding="utf-8"))
    size = processor.get("crop_size") or processor["size"]
    wanted, found = (size.get("height"), size.get("width")), arrays["images"].shape[2:]
    if None not in wanted and wanted != found:
        raise SystemExit(f"{SAMPLES}: images are {found}, {FOLDER / 'preprocessor_config.json'} says {wanted}; resize them first")
    if not np.isclose(processor.get("rescale_factor", 1 / 255), 1 / 255):
        raise SystemExit(f"rescale_factor {processor['rescale_factor']} is not 1/255; prepare the images with the processor, as '{inputs[0]}'")
    data[inputs[0]] = arrays["images"].astype(np.uint8)
    if processor.get("do_normalize", True):
        data |= {"mean": np.float32(processor["image_mean"]), "std": np.float32(processor["image_std"])}

# %% Is the model fed what it was trained on? The float accuracy says so.
checked = hwc_onnx.check_data(FOLDER / "model.onnx", data)
if checked.error:
    raise SystemExit(str(checked.error))

# %% Compress
TARGET.mkdir(parents=True, exist_ok=True)
result = hwc_onnx.compress(
    FOLDER / "model.onnx",
    data=data,
    accelerator="edge-flex",
    max_drop=MAX_DROP,
    trials=TRIALS,
    output=TARGET / "model.onnx",
    run_dir=TARGET / "hwc",
)
low, high = result.evaluation.ci95
print(f"{result.evaluation.metric}: drop {result.evaluation.drop_points:+.2f} points (95% interval {low:+.2f} .. {high:+.2f})")
print(f"energy {100 * result.to_json()['reduction_vs_int8']:.1f}% below INT8; goal {'met' if result.goal_met else 'NOT met'}")

# %% Configuration, processor and tokenizer go along
for file in FOLDER.iterdir():
    if file.is_file() and not file.name.startswith("model.onnx"):
        shutil.copy(file, TARGET)

# %% The folder in Optimum
if find_spec("optimum") is None:
    print("Optimum is not installed here; the folder opens with ORTModelFor....from_pretrained")
else:
    import optimum.onnxruntime

    architecture = json.loads((TARGET / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    opened = getattr(optimum.onnxruntime, "ORTModelFor" + architecture.split("For")[-1]).from_pretrained(TARGET)
    first = {name: np.asarray(data[name][:4]) for name in inputs}
    if "mean" in data:
        first[inputs[0]] = (first[inputs[0]] / 255.0 - data["mean"][:, None, None]) / data["std"][:, None, None]
        first[inputs[0]] = first[inputs[0]].astype(np.float32)
    print("Optimum:", type(opened).__name__, "logits", opened(**first).logits.shape)

if not result.goal_met:
    raise SystemExit(3)
