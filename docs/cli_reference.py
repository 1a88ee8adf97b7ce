"""Writes every command's --help into docs/cli.md, so that the page cannot drift: run by `make docs`, checked by a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from hwc_onnx.cli.main import cli

PAGE = Path(__file__).with_name("cli.md")
BEGIN, END = "<!-- reference:begin -->", "<!-- reference:end -->"
WIDTH = 80


def commands(command: click.Command, path: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """(full name, help text) of a command and of everything below it."""
    context = click.Context(command, info_name=path.split()[-1], parent=parent, terminal_width=WIDTH)
    yield path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, f"{path} {name}", context)


def reference() -> str:
    """The reference as Markdown."""
    return "\n".join(f"### {path}\n\n```text\n{text}\n```\n" for path, text in commands(cli, "hwc-onnx"))


def page() -> str:
    """The whole page, with its reference made anew."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n{reference()}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
