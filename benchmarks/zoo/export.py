"""Export the zoo to ONNX and record what torch-pruning can prune of each module.

    python benchmarks/zoo/export.py --out FOLDER
    python benchmarks/zoo/export.py --out FOLDER --only '*resnet*'

Runs in an environment of its own (README.md). What exists already is skipped; --no-pruning leaves torch-pruning out.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
import warnings
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from architectures import Architecture, architectures

RESULTS = Path(__file__).parent / "results" / "torch_pruning.json"
LARGEST_BYTES = 400_000_000
PRUNING_SECONDS = 150


def export(architecture: Architecture, path: Path) -> None:
    """Write one file; only the batch axis is dynamic, where one is wanted."""
    module, inputs = architecture.build()
    names = [f"input{place}" for place in range(len(inputs))] if len(inputs) > 1 else ["input"]
    if architecture.dynamo:
        batch = torch.export.Dim("batch")
        shapes = tuple({0: batch} for _ in inputs) if architecture.dynamic_batch else None
        # with a batch of one, the exporter takes the axis to be constant
        example = tuple(torch.cat([value, value]) for value in inputs) if architecture.dynamic_batch else inputs
        program = torch.onnx.export(
            module, example, dynamo=True, opset_version=architecture.opset, input_names=names, dynamic_shapes=shapes
        )
        program.save(path, external_data=False)
        return
    axes = {name: {0: "batch"} for name in names} if architecture.dynamic_batch else None
    torch.onnx.export(
        module, inputs, path, dynamo=False, opset_version=architecture.opset, input_names=names, dynamic_axes=axes
    )


def pruning(architecture: Architecture) -> dict[str, Any]:
    """What torch-pruning says of one architecture."""
    # needed here only, so that the files can be exported without it
    import torch_pruning
    from torch_share import torch_pruning_share

    found: dict[str, Any] = {"version": torch_pruning.__version__}
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(PRUNING_SECONDS)
    try:
        found |= torch_pruning_share(*architecture.build())
    except (Exception, OutOfTime) as error:  # recorded: a tool that fails prunes nothing
        found |= {"share": 0.0, "error": _said(error)}
    finally:
        signal.alarm(0)
    return found


class OutOfTime(BaseException):
    """Not an Exception, so that nothing on the way takes it for a failure of its own."""


def _out_of_time(*_: object) -> None:
    raise OutOfTime(f"not done after {PRUNING_SECONDS} s")


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Export the zoo to ONNX and record torch-pruning's results.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="*", help="names to export, as a glob")
    parser.add_argument("--no-pruning", action="store_true", help="export only")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    recorded = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for architecture in architectures():
        if not fnmatchcase(architecture.name, args.only):
            continue
        name, path, started = architecture.name, args.out / f"{architecture.name}.onnx", time.monotonic()
        text = "exists"
        if not path.exists():
            try:
                export(architecture, path)
                text = f"{'dynamo' if architecture.dynamo else 'script'}, opset {architecture.opset}"
            except Exception as error:  # one architecture that cannot be exported is a line, not the end
                path.unlink(missing_ok=True)
                text = f"not exported: {_said(error)}"
        if path.exists() and path.stat().st_size > LARGEST_BYTES:
            path.unlink()
            text = "too large"
        if not args.no_pruning and name not in recorded and path.exists():
            recorded[name] = pruning(architecture)
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
        share = recorded.get(name, {}).get("share")
        shown = "" if share is None else f", torch-pruning {100 * share:.1f} %"
        print(f"{name:45} {text}{shown}, {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
