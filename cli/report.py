"""`hwc-onnx report`: the page of a finished run."""

from __future__ import annotations

from pathlib import Path

import click

from .configuration import Configurable
from .settings import Settings, shared_options


@click.command(cls=Configurable, short_help="The page of a finished run.")
@click.argument("run_dir", metavar="RUN_DIR")
@click.option("-o", "--output", metavar="FILE.html", help="Where to write it. Default: report.html in the run folder.")
@click.option(
    "--beside",
    metavar="DIR",
    multiple=True,
    help="Run folder of another strategy or seed on the same model, data, accelerator and limit, whose search is drawn too; repeatable.",
)
@shared_options
def report(settings: Settings, run_dir: str, output: str | None, beside: tuple[str, ...]) -> None:
    """Write the report of a finished `compress` once more: one HTML file that needs no network.

    `compress` writes it at its end; this makes it again, after an upgrade or for another place.

    \b
    Examples:
      hwc-onnx report model.hwc
      hwc-onnx report model.hwc -o build/report.html
      hwc-onnx report model.hwc --beside model-tpe.hwc --beside model-random.hwc
    """
    from hwc_onnx.report.page import write_report
    from hwc_onnx.report.profile_figure import checked_path

    place = write_report(Path(run_dir), None if output is None else checked_path(output, "--output"), [Path(other) for other in beside])
    settings.show({"schema": 1, "report": str(place)}, lambda: [f"written: {place}"])
