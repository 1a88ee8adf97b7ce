"""`hwc-onnx man`: the manual page, made from the commands themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version

import click

from .settings import Settings, shared_options

FILES = (
    ("<stem>.hwc/", "run folder of compress: plan, result, report, study, the options of the run (config.resolved.yaml)"),
    ("<stem>.compare/", "run folder of compare"),
)
VARIABLES = (
    ("HWC_ONNX_THREADS", "Threads that any command uses at most."),
    ("HWC_ONNX_CACHE", "Folder of searched mappings; empty keeps none."),
    ("HWC_ONNX_<COMMAND>_<OPTION>", "Any option of a command, such as HWC_ONNX_COMPRESS_MAX_DROP."),
)
CODES = (
    ("0", "goal met"),
    ("1", "internal error, or the runtime or disk failed"),
    ("2", "wrong use: options, configuration file, a place that cannot be written"),
    ("3", "valid file written, goal not met"),
    ("4", "model, data, accelerator or plan refused"),
    ("5", "verification failed"),
    ("130", "interrupted"),
    ("141", "output closed"),
)


@click.command(short_help="The manual page, for `man`.")
@shared_options
@click.pass_context
def man(ctx: click.Context, /, settings: Settings) -> None:
    """Print the manual page of all commands, in the format of man.

    \b
    Examples:
      hwc-onnx man > hwc-onnx.1
      hwc-onnx man > ~/.local/share/man/man1/hwc-onnx.1
    """
    text = "\n".join(page(ctx.find_root().command))
    settings.show({"schema": 1, "page": text}, lambda: [text])


def page(program: click.Command) -> Iterator[str]:
    """The lines of the page."""
    yield f'.TH HWC\\-ONNX 1 "" "hwc\\-onnx {_text(version("hwc-onnx"))}" "User Commands"'
    yield from (".SH NAME", "hwc\\-onnx \\- compress ONNX models for an energy\\-starved accelerator, without retraining")
    yield from (".SH SYNOPSIS", ".B hwc\\-onnx", ".I COMMAND", "[options]")
    yield ".SH DESCRIPTION"
    root = click.Context(program, info_name="hwc-onnx")
    yield from _help(program)
    yield ".SH COMMANDS"
    for path, command, context in commands(program, root):
        yield f".SS {_text(path)}"
        yield from (".B " + _text(" ".join([path, *command.collect_usage_pieces(context)])), ".PP")
        yield from _help(command)
        for option in command.params:
            record = option.get_help_record(context) if isinstance(option, click.Option) else None
            if record is not None:
                yield from (".TP", f".B {_text(record[0])}", _line(record[1]))
    yield ".SH EXIT STATUS"
    yield from _terms(CODES)
    yield ".SH ENVIRONMENT"
    yield from _terms(VARIABLES)
    yield ".SH FILES"
    yield from _terms(FILES)


def commands(
    command: click.Command, context: click.Context
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """(full name, command, its context) of everything below a group that does work."""
    if not isinstance(command, click.Group):
        yield context.command_path, command, context
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from commands(below, click.Context(below, info_name=name, parent=context))


def _help(command: click.Command) -> Iterator[str]:
    """Paragraphs of a help text; examples keep their lines."""
    for part in (command.help or "").split("\n\n"):
        lines = [line.strip() for line in part.replace("\f", "").splitlines() if line.strip()]
        if lines and lines[0] == "\b":
            yield from (".PP", ".nf", *(_line(line) for line in lines[1:]), ".fi", ".PP")
        elif lines:
            yield from (_line(" ".join(lines)), ".PP")


def _terms(pairs: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for term, text in pairs:
        yield from (".TP", f".B {_text(term)}", _line(text))


def _text(text: str) -> str:
    """Characters that roff takes for its own, escaped."""
    plain = re.sub(r"\s+", " ", text.replace("\\", "\\e"))
    return plain.replace("-", "\\-").replace("µ", "\\(mc")


def _line(text: str) -> str:
    """A line of text, which must not begin like a request."""
    line = _text(text)
    return f"\\&{line}" if line.startswith((".", "'")) else line
