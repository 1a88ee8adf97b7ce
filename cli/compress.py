"""`hwc-onnx compress`: search for the best compression of a model and write it."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click
from click.core import ParameterSource

from .configuration import Configurable, with_origins
from .options import (
    DEFAULT_ACCELERATOR,
    activation_bits_option,
    algorithms_option,
    calibration_samples_option,
    data_option,
    exclude_option,
    include_option,
    input_shape_option,
    keep_heads_option,
    metric_option,
    min_channels_option,
    model_argument,
    preset_option,
    ratio_bounds_option,
    search_samples_option,
    split_seed_option,
    task_option,
    weight_bits_option,
)
from .parameters import ByteSize, Drop, Duration, Latency, Share, names
from .settings import Settings, shared_options

PUBLISHED = ("l1", "l2", "bernoulli", "reconstruct", "magnitude", "sensitivity", "wanda")
"""The algorithms of `--faithful`: four that take channels away, as published, and three that leave zeros (chosen here)."""


@click.command(cls=Configurable, short_help="Search for the best compression and write it.")
@model_argument
@click.option(
    "-o", "--output", metavar="FILE", help="Compressed model. Default: <stem>.hwc.onnx in the current folder."
)
@data_option
@click.option(
    "--accel",
    "accelerator",
    metavar="NAME|FILE",
    default=DEFAULT_ACCELERATOR,
    show_default=True,
    help="Accelerator to compress for: a name of `accel list`, or a YAML file.",
)
@click.option(
    "--compare-accel",
    "compare_accelerators",
    metavar="NAME|FILE",
    multiple=True,
    help="Report the result's energy on this accelerator too. May be repeated.",
)
@click.option(
    "--objective",
    type=click.Choice(["energy", "drop"]),
    default="energy",
    show_default=True,
    help="Look for least energy within --max-drop, or for the least drop within --max-energy.",
)
@click.option(
    "--max-drop",
    type=Drop,
    help="Largest accuracy drop: points (1.0) or share of the original's value (1%). Default: 1.0; with --objective drop, any.",
)
@click.option("--max-energy", type=Share, help="Energy limit as a share of the INT8 baseline, such as 40%.")
@click.option("--max-latency", type=Latency, help="Latency limit, such as 5ms.")
@click.option("--max-bytes", type=ByteSize, help="File size limit, such as 500KB.")
@click.option(
    "--max-memory",
    type=ByteSize,
    help="Limit on the accelerator's memory that weights and stored activations take, such as 200KB.",
)
@metric_option
@task_option
@preset_option
@click.option(
    "--sampler",
    metavar="NAME",
    default="composite",
    show_default=True,
    help="composite, positions, faithful, knapsack, greedy, spdy, evolution, thompson, cmaes, tpe, tpe-univariate, nsga2, random, gp, or "
    "module:attribute.",
)
@click.option(
    "--policy",
    metavar="FILE|pretrained|none",
    help="Networks that the agents of composite start with: agent.safetensors of a run folder, a policy file, or those that "
    "come with hwc-onnx (pretrained). Default: none, from scratch.",
)
@click.option(
    "--faithful",
    is_flag=True,
    help="Search as published: the two agents' raw actions, real episodes only, seven pruning algorithms, no seeds.",
)
@click.option(
    "--trials", type=click.IntRange(min=1), default=200, show_default=True, help="Candidates to evaluate at most."
)
@click.option("--timeout", type=Duration, help="Time limit of the search, such as 30m.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the search.")
@split_seed_option
@click.option(
    "--gate",
    type=click.Choice(["upper", "point"]),
    help="Judge the drop's 95% upper bound or its point estimate. Default: upper where the holdout is large enough.",
)
@weight_bits_option
@activation_bits_option
@algorithms_option
@click.option(
    "--granularity",
    type=names("fine", "coarse"),
    default="fine,coarse",
    show_default=True,
    help="Zeros in the weights (fine), channels removed (coarse), or both.",
)
@click.option(
    "--lanes", type=click.IntRange(min=1), default=1, show_default=True, help="Keep channels in multiples of this."
)
@min_channels_option
@ratio_bounds_option
@keep_heads_option
@click.option(
    "--dialect",
    metavar="NAME",
    default="ort",
    show_default=True,
    help="How quantization is written: ort, openvino, qcdq, qonnx or tensorrt (see docs/dialects.md).",
)
@click.option("--portable", is_flag=True, help="Limit 8-bit weights to +-63, safe on x86 without VNNI.")
@click.option(
    "--polish",
    is_flag=True,
    help="Round layers of at most 4 weight bits of the best plans up or down anew (AdaRound), kept where that measures better.",
)
@click.option(
    "--first-last",
    type=click.Choice(["keep", "free"]),
    default="keep",
    show_default=True,
    help="Keep the network's input and the last layer's input at 8 bits, or let the search choose.",
)
@include_option
@exclude_option
@input_shape_option
@calibration_samples_option
@search_samples_option
@click.option("--run-dir", metavar="DIR", help="Run folder. Default: <stem>.hwc beside the output.")
@click.option(
    "--run-dir-limit",
    type=ByteSize,
    help="Room for the run folder, such as 500MB: its cache gives way, used longest ago first.",
)
@click.option(
    "--from-run",
    metavar="DIR",
    help="Judge the trials of this finished run by other limits instead of searching; needs -o. The run folder is named after it.",
)
@click.option("--resume", is_flag=True, help="Demand that the run folder exists and continue it.")
@click.option("--fresh", is_flag=True, help="Move an existing run folder aside and start again.")
@click.option(
    "--dry-run", is_flag=True, help="Check the inputs, print what would be done and about how long it takes, and write nothing."
)
@shared_options
@click.pass_context
def compress(
    ctx: click.Context,
    /,
    settings: Settings,
    model: str,
    resume: bool,
    fresh: bool,
    faithful: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Search for the compression of MODEL that costs the accelerator least energy (or loses least accuracy), and write it.

    Each layer gets its own pruning algorithm, ratio and bit widths; the accuracy of a candidate is measured with
    ONNX Runtime, its energy is computed. The best plans are judged once more on samples that the search never saw.
    Running the same command again continues the run folder.

    \b
    Examples:
      hwc-onnx compress model.onnx
      hwc-onnx compress model.onnx --data val.npz --max-drop 1.0 --trials 200
      hwc-onnx compress model.onnx --data val.npz --accel my-chip.yaml --max-bytes 500KB -o small.onnx
      hwc-onnx compress model.onnx --data val.npz --objective drop --max-energy 40%
      hwc-onnx compress model.onnx --data val.npz --weight-bits 4-8 --granularity fine --json
      hwc-onnx compress model.onnx --data val.npz --faithful --trials 400
      hwc-onnx compress model.onnx --data val.npz --save-config small.yaml --dry-run
      hwc-onnx compress model.onnx --data val.npz --from-run model.hwc --max-drop 0.5 -o half.onnx
    """
    if resume and fresh:
        raise click.UsageError("--resume continues a run folder and --fresh starts a new one; give one of them", ctx)
    if faithful:
        given = ctx.get_parameter_source("sampler") is not ParameterSource.DEFAULT
        if given and options["sampler"] != "faithful":
            raise click.UsageError(
                f"--faithful searches with its own sampler, --sampler {options['sampler']} names another; give one of them", ctx
            )
        options["sampler"] = "faithful"
        options["algorithms"] = options["algorithms"] or PUBLISHED
    if options["objective"] == "drop" and options["max_energy"] is None:
        raise click.UsageError("--objective drop looks for the least drop at an energy; say which, such as --max-energy 40%", ctx)
    from hwc_onnx import api
    from hwc_onnx.report.result_table import result_tables

    if dry_run:
        _plan(ctx, settings, model, resume=True if resume else None, fresh=fresh, **options)
        return
    with settings.progress() as progress:
        try:
            result = api.compress(model, resume=True if resume else None, fresh=fresh, on_event=progress, **options)
        except KeyboardInterrupt:
            progress.interrupted(_again())
            raise
    payload = result.to_json()
    settings.show(payload, lambda: result_tables(payload, notes=settings.quiet))
    if payload["search"]["stopped_by"] == "interrupted":
        progress.interrupted(_again())
    ctx.exit(payload["exit_code"])


def _plan(ctx: click.Context, settings: Settings, model: str, **arguments: Any) -> None:
    """What would be done."""
    from hwc_onnx import api
    from hwc_onnx.report.dry_run_table import dry_run_payload, dry_run_tables

    with settings.progress() as progress:
        found = api.plan_work(model, on_event=progress, **arguments)
    payload = dry_run_payload(found, {key: entry for key, entry in with_origins(ctx).items() if entry[0] is not None})
    settings.show(payload, lambda: dry_run_tables(payload))


def _again() -> str:
    return shlex.join(["hwc-onnx", *sys.argv[1:]])
