"""`hwc-onnx fix`: inputs that never change on the device become constants."""

from __future__ import annotations

import click

from .configuration import Configurable
from .parameters import PATH, InputValue
from .settings import Settings, shared_options

Value = float | int | bool

def _once(_: click.Context, __: click.Parameter, value: tuple[tuple[str, Value], ...]) -> dict[str, Value]:
    names = [name for name, _ in value]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise click.UsageError(f"--input {twice}: given twice; leave one of them out")
    return dict(value)


@click.command(cls=Configurable, short_help="Turn inputs that never change into constants.")
@click.argument("model", metavar="MODEL", type=PATH)
@click.option(
    "--input",
    "fixed_inputs",
    metavar="NAME=VALUE",
    type=InputValue,
    multiple=True,
    required=True,
    callback=_once,
    help="An input and the number that it always has, such as sr=16000 or training=0. May be given several times.",
)
@click.option("-o", "--output", metavar="FILE", type=PATH, help="Where the model is written. Default: <model>.fixed.onnx here.")
@shared_options
def fix(settings: Settings, model: str, fixed_inputs: dict[str, Value], output: str | None) -> None:
    """Write MODEL with some of its inputs turned into constants.

    A model that takes a sampling rate, a mode or a flag often chooses between whole networks with it. Once the choice is
    made, the branch that is taken can be compressed like any model; the file no longer asks for the input.

    \b
    Examples:
      hwc-onnx fix silero_vad.onnx --input sr=16000 -o vad16k.onnx
      hwc-onnx compress vad16k.onnx --input-shape input:1x576 --input-shape state:2x1x128
    """
    from hwc_onnx import api
    from hwc_onnx.report.fixed_table import fixed_tables

    fixed = api.fix(model, fixed_inputs)
    written = fixed.save(output)
    payload = fixed.to_json(model, written)
    settings.show(payload, lambda: fixed_tables(payload))
