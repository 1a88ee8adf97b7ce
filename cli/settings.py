"""What every command shares: --json, --quiet, --log-level and --debug, and how a result is printed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hwc_onnx.report.progress import Progress
    from hwc_onnx.report.progress_json import JsonProgress

Command = Callable[..., Any]


@dataclass
class Settings:
    """The shared options of one invocation."""

    json: bool = False
    quiet: bool = False
    debug: bool = False

    def show(self, payload: dict[str, Any] | list[Any], tables: Callable[[], Sequence[RenderableType]]) -> None:
        """Print the result on stdout: `payload` with --json, otherwise the tables made from it."""
        from hwc_onnx.report.console import print_json, print_tables

        if self.json:
            print_json(payload, sys.stdout)
        else:
            print_tables(tables(), sys.stdout)
        sys.stdout.flush()

    def progress(self) -> Progress | JsonProgress:
        """What hears the events of a long call: lines for people on stderr, or with --json lines of JSON."""
        from hwc_onnx.report.progress import Progress
        from hwc_onnx.report.progress_json import JsonProgress

        kind = JsonProgress if self.json else Progress
        return kind(sys.stderr, quiet=self.quiet)


def _store(name: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            setattr(ctx.find_root().ensure_object(Settings), name, True)

    return callback


def _log_level(_: click.Context, __: click.Parameter, value: str) -> None:
    logging.basicConfig(
        stream=sys.stderr, level=value.upper(), format="%(levelname)s %(name)s: %(message)s", force=True
    )


LEVELS = click.Choice(["debug", "info", "warning", "error"])


def shared_options(command: Command) -> Command:
    """Add the options that every command takes; they reach the command as its `Settings`."""
    flags = (
        ("--json", "json", "Print the result as JSON on stdout, progress as lines of JSON on stderr."),
        ("--quiet", "quiet", "No progress on stderr."),
        ("--debug", "debug", "Show the traceback of an error."),
    )
    level = click.option(
        "--log-level",
        type=LEVELS,
        default="warning",
        show_default=True,
        expose_value=False,
        callback=_log_level,
        help="Library messages shown on stderr.",
    )
    command = level(command)
    for option, name, text in reversed(flags):
        command = click.option(
            option, name, is_flag=True, is_eager=True, expose_value=False, callback=_store(name), help=text
        )(command)
    return click.pass_obj(command)
