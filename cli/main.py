"""The entry point: which commands exist, and what becomes of an error.

Commands are named in a literal table and imported when asked for. An `HwcError` is printed as one line and sets its
own exit code; an interrupt exits with 130, a closed pipe with 141; anything else is a bug of this program, exits with 1
and shows its traceback only with `--debug`.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any

import click

from hwc_onnx.errors import HwcError
from hwc_onnx.plugins import nearest

from .configuration import PREFIX
from .settings import Settings

COMMANDS: Mapping[str, str] = {
    "compress": "hwc_onnx.cli.compress:compress",
    "compare": "hwc_onnx.cli.compare:compare",
    "profile": "hwc_onnx.cli.profile:profile",
    "inspect": "hwc_onnx.cli.inspect:inspect",
    "evaluate": "hwc_onnx.cli.evaluate:evaluate",
    "apply": "hwc_onnx.cli.apply:apply",
    "sensitivity": "hwc_onnx.cli.sensitivity:sensitivity",
    "why": "hwc_onnx.cli.why:why",
    "verify": "hwc_onnx.cli.verify:verify",
    "fix": "hwc_onnx.cli.fix:fix",
    "report": "hwc_onnx.cli.report:report",
    "data": "hwc_onnx.cli.data:data",
    "accel": "hwc_onnx.cli.accel:accel",
    "clean": "hwc_onnx.cli.clean:clean",
    "doctor": "hwc_onnx.cli.doctor:doctor",
    "completion": "hwc_onnx.cli.completion:completion",
    "man": "hwc_onnx.cli.manual:man",
}
FACTS = ("onnx", "onnxruntime", "torch", "optuna", "numpy")
"""Packages that `--version` names besides this one: results can depend on them."""
INTERRUPTED = 130
CLOSED_PIPE = 141


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called for, in the order of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, or None."""
        target = COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest command named in the error."""
        if args and not ctx.resilient_parsing and not args[0].startswith("-") and args[0] not in COMMANDS:
            known = list(COMMANDS)
            raise click.UsageError(
                f"no command '{args[0]}'{nearest(args[0], known)}; choose from {', '.join(known)}", ctx
            )
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors become a message on stderr and an exit code."""
        settings = ctx.ensure_object(Settings)
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            # whoever read the output has enough of it; what is still buffered must not fail at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            ctx.exit(CLOSED_PIPE)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except Exception as error:
            if settings.debug:
                traceback.print_exc(file=sys.stderr)
            click.echo(_message(error), err=True)
            ctx.exit(error.exit_code if isinstance(error, HwcError) else 1)


def _message(error: Exception) -> str:
    if isinstance(error, HwcError):
        return f"error: {error}"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"error: {where}{error.strerror}"
    if isinstance(error, MemoryError):
        return "error: out of memory; lower --calibration-samples or --search-samples, or use a larger machine"
    name = type(error).__name__
    return f"error: sorry, this is a bug in hwc-onnx ({name}: {error}); run again with --debug and report the traceback"


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        import platform

        from hwc_onnx import commit

        known = commit.commit()
        click.echo(f"hwc-onnx {_installed('hwc-onnx')}" + (f", commit {known}" if known else ""))
        click.echo(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
        click.echo(", ".join(f"{name} {_installed(name)}" for name in FACTS))
        ctx.exit()


def _installed(name: str) -> str:
    """The version of a package."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": PREFIX})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Print versions, the commit where it is known, and platform.",
    allow_from_autoenv=False
)
def cli() -> None:
    """Compress ONNX models for an energy-starved accelerator, without retraining.

    \b
    Examples:
      hwc-onnx compress model.onnx --data val.npz --max-drop 1.0
      hwc-onnx profile model.onnx --accel edge-flex
      hwc-onnx COMMAND --help

    Results go to stdout, progress to stderr; every command takes --json. Exit codes: 0 goal met, 1 internal
    error, 2 usage, 3 valid file written but goal not met, 4 model, data, accelerator or plan refused,
    5 verification failed, 130 interrupted, 141 output closed.
    """
