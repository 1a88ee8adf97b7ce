"""`hwc-onnx verify`: check a compressed file against its original, and see where it runs."""

from __future__ import annotations

import click

from .configuration import Configurable
from .options import DEFAULT_ACCELERATOR, data_option, input_shape_option, preset_option
from .parameters import Difference
from .settings import Settings, shared_options


@click.command(cls=Configurable, short_help="Check a compressed file against its original.")
@click.argument("compressed", metavar="COMPRESSED")
@click.option("--against", metavar="ORIGINAL", required=True, help="The model that the file was made from.")
@data_option
@preset_option
@click.option(
    "--accel",
    "accelerator",
    metavar="NAME|FILE",
    default=DEFAULT_ACCELERATOR,
    show_default=True,
    help="Accelerator on which the file's energy is computed again.",
)
@click.option(
    "--max-difference",
    metavar="SHARE",
    type=Difference,
    help="The largest difference of the outputs from the original's that passes (root mean square, on --data), such as 5%.",
)
@input_shape_option
@shared_options
@click.pass_context
def verify(
    ctx: click.Context,
    settings: Settings,
    compressed: str,
    against: str,
    data: str | None,
    preset: str | None,
    accelerator: str,
    input_shapes: dict[str, tuple[int, ...]] | None,
    max_difference: float | None,
) -> None:
    """Check that COMPRESSED opens, computes and declares what it should.

    It must open at all four graph-optimisation levels, give the same answers at each, and keep the original's
    inputs and outputs; its bytes and energy are counted from the file. A table says where it runs: ONNX Runtime at
    each level, OpenVINO and qonnx where they are installed, and which of TensorRT's published rules it keeps. Exit
    code 5 when a check fails; the runtime that the file is written for is one.

    \b
    Examples:
      hwc-onnx verify model.hwc.onnx --against model.onnx
      hwc-onnx verify model.hwc.onnx --against model.onnx --data val.npz --max-difference 5% --json
    """
    from hwc_onnx import api
    from hwc_onnx.report.payloads import verify_payload
    from hwc_onnx.report.verify_table import verify_tables

    with settings.progress() as progress:
        checked = api.verify(
            compressed,
            against=against,
            data=data,
            accelerator=accelerator,
            preset=preset,
            input_shapes=input_shapes,
            max_difference=max_difference,
            on_event=progress,
        )
    payload = verify_payload(checked, compressed, against)
    settings.show(payload, lambda: verify_tables(payload))
    if not payload["passed"]:
        ctx.exit(5)
