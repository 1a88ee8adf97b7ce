"""One model, one method of another tool, one quantized file. Run by the peers' own Python, never by hwc-onnx.

    PEERS/bin/python benchmarks/recovery_peers/quantize.py model.onnx calibration.npz ort_entropy out.onnx
    PEERS/bin/python benchmarks/recovery_peers/quantize.py --list

calibration.npz holds one array [N, ...] per input of the model, as the model reads it. `--list` prints what the
environment can do, as JSON: method, setting ("w8a8", ...) and version of the tool; a tool that is not installed is left
out. Each tool runs as its documentation recommends for a user without a GPU and without a validation set; how is said
in the module of the tool.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.generic]]
Method = Callable[[Path, Arrays, Path], None]

TOOLS = {
    "onnxruntime": "with_ort",
    "nncf": "with_nncf",
    "amd-quark": "with_quark",
    "aimet-onnx": "with_aimet",
}


def methods() -> dict[str, tuple[str, str, str]]:
    """Per method: (the module that has it, its setting, tool and version); only of tools that are installed."""
    found = {}
    for package, module in TOOLS.items():
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        for setting, names in importlib.import_module(module).SETTINGS.items():
            for name in names:
                found[f"{name}@{setting}"] = (module, setting, f"{package} {version}")
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Quantize one model with one method of another tool.")
    parser.add_argument("--list", action="store_true", help="print methods, settings and versions as JSON")
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("calibration", type=Path, nargs="?")
    parser.add_argument("method", nargs="?")
    parser.add_argument("out", type=Path, nargs="?")
    args = parser.parse_args()
    known = methods()
    if args.list:
        print(json.dumps({name: {"setting": setting, "tool": tool} for name, (_, setting, tool) in known.items()}))
        return
    if args.out is None:
        parser.error("give model, calibration, method and out")
    if args.method not in known:
        sys.exit(f"no method {args.method}; there are {', '.join(known)}")
    module, setting, _ = known[args.method]
    with np.load(args.calibration) as file:
        arrays = {name: file[name] for name in file.files}
    name = args.method.partition("@")[0]
    importlib.import_module(module).quantize(args.model, arrays, name, setting, args.out)


if __name__ == "__main__":
    main()
