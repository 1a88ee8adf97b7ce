"""The commands on a run's page, with the options that the run was given, so that each can be copied and run.

Paths are those of the folder in which the page was written, relative to it: what the user did not name is not shown. What
was an object of Python has a placeholder, since no command line can name it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from hwc_onnx.configuration import names_path
from hwc_onnx.report.run_record import RunRecord

DEFAULTS: Mapping[str, str] = {
    "accel": "edge-flex",
    "split-seed": "0",
    "trials": "200",
    "max-drop": "1.0",
    "weight-bits": "2-8",
    "activation-bits": "4-8",
}
"""Values that need not be said, as the commands have them."""
NAMES = {"accel": "accelerator"}
"""Options that commands take under another name than their flag's."""
SOURCE, METRIC, MODEL = "SOURCE", "MODULE:FUNCTION", "MODEL.onnx"
"""In place of what was given as an object of Python."""
SHARED = ("data", "accel", "metric", "task", "preset", "input-shape")
SEARCHED = ("weight-bits", "activation-bits", "algorithms", "include", "exclude", "calibration-samples", "search-samples")
LISTS = frozenset({"algorithms"})
"""Options whose values are one text with commas; others are repeated."""


def apply_command(record: RunRecord, plan: Path) -> str:
    """What turns a plan of this run into a file."""
    name = f"{Path(_model(record)).stem}.{plan.stem}.onnx"
    return _line(record, "apply", ["--plan", shown(record, plan)], (*SHARED, "split-seed"), ["-o", name])


def why_command(record: RunRecord, *more: str) -> str:
    """What tells which layers lose most under the plan of this run."""
    return _line(record, "why", ["--plan", shown(record, record.folder / "plan.json")], (*SHARED, "split-seed"), more)


def sensitivity_command(record: RunRecord) -> str:
    """What measures each layer alone under every kind of compression."""
    return _line(record, "sensitivity", [], (*SHARED, "include", "exclude", "split-seed"))


def compare_command(record: RunRecord) -> str:
    """What runs other strategies on the task of this run."""
    return _line(record, "compare", [], (*SHARED, "trials", "max-drop", *SEARCHED))


def explain_command(record: RunRecord) -> str:
    """What prints the energy of one node of the written file as a sum of products."""
    output = record.given.get("output")
    path = shown(record, Path(record.result["output"]["path"])) if output is None else _seen(record, str(output))
    given = [word for name in ("accel", "input-shape") for word in _option(record, name)]
    return shlex.join(["hwc-onnx", "profile", path, *given, "--explain", "NODE"])


def report_command(record: RunRecord) -> str:
    """What writes this page again."""
    return shlex.join(["hwc-onnx", "report", shown(record, record.folder)])


def is_complete(record: RunRecord) -> bool:
    """Whether the commands name everything: nothing was given as an object of Python."""
    return not {SOURCE, METRIC, MODEL} & set(shlex.split(why_command(record)))


def shown(record: RunRecord, path: Path) -> str:
    """A path as the current folder sees it, by the names that lead there: where links point is not told; in full only below a folder
    that the user named in full.
    """
    full = os.path.abspath(path)
    near = os.path.relpath(full)
    named = Path(record.result["model"]["path"] or "").parent
    return full if near.startswith("..") and named.is_absolute() and Path(full).is_relative_to(os.path.abspath(named)) else near


def without_places(record: RunRecord, words: str) -> str:
    """A sentence of the run with the folders that it named in full by itself as the current folder sees them."""
    for path in (record.result["run_dir"], record.result["output"]["path"]):
        words = words.replace(path, shown(record, Path(path))) if os.path.isabs(path) else words
    return words


def _line(record: RunRecord, command: str, plan: Sequence[str], options: Sequence[str], end: Sequence[str] = ()) -> str:
    given = [word for name in options for word in _option(record, name)]
    return shlex.join(["hwc-onnx", command, _model(record), *plan, *given, *end])


def _model(record: RunRecord) -> str:
    """The model by the words of the user where those lead to it from here."""
    path, kept = record.result["model"]["path"], record.given.get("model")
    if kept is None:
        return path or MODEL
    near = _seen(record, str(kept))
    return path if path and os.path.realpath(path) == os.path.realpath(near) else near


def _option(record: RunRecord, name: str) -> list[str]:
    """The words of one option; none where the run left it at its default."""
    value = record.given.get(name)
    values = value if isinstance(value, list) else [] if value is None else [value]
    words = [_seen(record, str(one)) if names_path(NAMES.get(name, name), str(one)) else str(one) for one in values]
    words = [",".join(words)] if name in LISTS and words else words or _stand_ins(record, name)
    return [] if words == [DEFAULTS.get(name)] else [word for one in words for word in (f"--{name}", one)]


def _stand_ins(record: RunRecord, name: str) -> list[str]:
    """What stands for an option that the run's file does not hold although it was given."""
    if name == "data":
        return [SOURCE if record.result["data"] == "real" else "synthetic"]
    if name == "metric" and record.config.get("metric"):
        metric = str(record.config["metric"])
        return [METRIC if ":" in metric else metric]
    return [record.result["accelerator"]["name"]] if name == "accel" else []


def _seen(record: RunRecord, value: str) -> str:
    """A path of config.resolved.yaml, which is relative to that file."""
    return shown(record, record.folder / value)
