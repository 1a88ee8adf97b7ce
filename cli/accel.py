"""`hwc-onnx accel`: the accelerators that energy can be computed for."""

from __future__ import annotations

import click

from .parameters import ACCELERATOR
from .settings import Settings, shared_options


@click.group(short_help="List, show and check accelerators.")
def accel() -> None:
    """List, show and check accelerator profiles.

    \b
    Examples:
      hwc-onnx accel list
      hwc-onnx accel show edge-flex
      hwc-onnx accel template > my-chip.yaml
      hwc-onnx accel check my-chip.yaml
    """


@accel.command("list")
@shared_options
def list_command(settings: Settings) -> None:
    """The profiles that ship with hwc-onnx.

    \b
    Examples:
      hwc-onnx accel list
      hwc-onnx accel list --json
    """
    from hwc_onnx.cost.profile import list_profiles, load_profile
    from hwc_onnx.report.accel_table import list_payload, list_tables

    payload = list_payload([load_profile(name) for name in list_profiles()])
    settings.show(payload, lambda: list_tables(payload))


@accel.command("show")
@click.argument("name", metavar="NAME|FILE", type=ACCELERATOR)
@shared_options
def show_command(settings: Settings, name: str) -> None:
    """The memories of a profile, the energy of one MAC from each, and every constant with its source.

    In the drawing I, W and O are inputs, weights and outputs on their way from the multiplier to the DRAM; a star is a
    memory that holds them. A partial sum is read and written.

    \b
    Examples:
      hwc-onnx accel show edge-flex
      hwc-onnx accel show my-chip.yaml --json
    """
    from hwc_onnx.cost.profile import load_profile
    from hwc_onnx.report.accel_table import show_payload, show_tables

    payload = show_payload(load_profile(name))
    settings.show(payload, lambda: show_tables(payload))


@accel.command("check")
@click.argument("name", metavar="FILE", type=ACCELERATOR)
@shared_options
@click.pass_context
def check_command(ctx: click.Context, /, settings: Settings, name: str) -> None:
    """Check an accelerator file; each mistake is named with its field, what is allowed there and what to do.

    A file with mistakes exits with 4, and with --json lists them.

    \b
    Examples:
      hwc-onnx accel check my-chip.yaml
      hwc-onnx accel check edge-flex --json
    """
    from hwc_onnx.cost.profile import load_profile
    from hwc_onnx.errors import ProfileError
    from hwc_onnx.report.accel_table import check_payload, check_tables, refusal_payload

    try:
        payload = check_payload(load_profile(name), name)
    except ProfileError as error:
        if not settings.json:
            raise
        refused = refusal_payload(error, name)
        settings.show(refused, list)
        ctx.exit(error.exit_code)
    settings.show(payload, lambda: check_tables(payload))


@accel.command("template")
@shared_options
def template_command(settings: Settings) -> None:
    """A commented accelerator file to start from.

    \b
    Examples:
      hwc-onnx accel template > my-chip.yaml
    """
    from hwc_onnx.cost.profile import template_text
    from hwc_onnx.report.accel_table import template_payload

    text = template_text()
    settings.show(template_payload(text), lambda: [text.rstrip("\n")])
