"""Writes hwc_onnx/config.schema.json from the commands' options: run by `make docs`, checked by a test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

import click
from pydantic import TypeAdapter

from hwc_onnx.cli.configuration import Configurable, model_of
from hwc_onnx.cli.main import cli

TARGET = Path(__file__).parents[1] / "hwc_onnx" / "config.schema.json"


def configurable(command: click.Command = cli, path: str = "") -> Iterator[tuple[str, Configurable]]:
    """(name, command) of every command that takes `--config`."""
    if isinstance(command, Configurable):
        yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from configurable(below, f"{path} {name}".strip())


def schema() -> dict[str, Any]:
    """The JSON Schema of a configuration file: that of one command."""
    models = tuple(model_of(command, name) for name, command in configurable())
    made: Any = Union[models]  # noqa: UP007 - the members are made here
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hwc-onnx configuration file, schema 1",
        **TypeAdapter(made).json_schema(by_alias=True),
    }


if __name__ == "__main__":
    TARGET.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
