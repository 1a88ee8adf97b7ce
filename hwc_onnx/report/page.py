"""The report of a run: one HTML file that needs no network, with what was done to each layer, why, and what it bought."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from hwc_onnx.cost.accelerator import AcceleratorProfile
from hwc_onnx.files import write_atomic
from hwc_onnx.report.page_frame import framed
from hwc_onnx.report.page_sections import SECTIONS, heading
from hwc_onnx.report.payloads import SCHEMA
from hwc_onnx.report.profile_payload import profile_payload
from hwc_onnx.report.run_record import PROFILE, RunRecord
from hwc_onnx.result import Figures

NAME = "report.html"


def write_pages(folder: Path, figures: Figures, accelerator: AcceleratorProfile) -> Path:
    """Write profile.json, both networks node by node as `profile --explain --json` prints one, then the report that is drawn from it.

    Raises:
        UsageError, RuntimeFailure: as `write_atomic`.
    """
    both = {
        name: profile_payload(accelerator, cost, figures.baseline_int8, figures.unquantized, 0.0, "measured", explain=True)
        for name, cost in (("baseline_int8", figures.baseline_int8), ("compressed", figures.compressed))
    }
    write_atomic(folder / PROFILE, json.dumps({"schema": SCHEMA, **both}).encode(), "--run-dir")
    return write_report(folder)


def write_report(folder: Path, output: Path | None = None, beside: Sequence[Path] = ()) -> Path:
    """Write the page of the finished run in `folder` (default: report.html there) and return its place.

    The searches of the runs in `beside` are drawn with it.

    Raises:
        UsageError: no finished run, a damaged file, runs that cannot be compared, or a place that cannot be written.
    """
    place = output if output is not None else folder / NAME
    write_atomic(place, page(RunRecord.load(folder).with_beside(beside)).encode(), "-o")
    return place


def page(record: RunRecord) -> str:
    """The whole page."""
    made = [(name, words, part) for name, words, build in SECTIONS if (part := build(record)) is not None]
    return framed(heading(record), [part for *_, part in made], {name: words for name, words, _ in made})
