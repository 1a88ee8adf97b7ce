"""`hwc-onnx doctor`: what this machine offers, and what is missing."""

from __future__ import annotations

import click

from .settings import Settings, shared_options


@click.command(short_help="What this machine offers, and what is missing.")
@shared_options
def doctor(settings: Settings) -> None:
    """Versions, optional packages, processor and memory of this machine, and which bit widths ONNX Runtime opens here.

    A small network is written at each pair of widths and opened at every level of graph optimisation; its answers are
    compared between levels. Exit code 5 when a pair of widths does not open or differs.

    \b
    Examples:
      hwc-onnx doctor
      hwc-onnx doctor --json
    """
    from hwc_onnx.doctor import examine
    from hwc_onnx.report.doctor_table import doctor_tables

    payload = examine()
    settings.show(payload, lambda: doctor_tables(payload))
    if any(probe["failures"] for probe in payload["probes"]):
        click.get_current_context().exit(5)
