"""Values as people write them (40%, 5ms, 500KB, 2-8, x:1x3x224x224) become numbers; a wrong one says what is allowed."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

_NUMBER = r"([0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)"


class _Quantity(click.ParamType[Any]):
    """A number with a unit from a table; without a unit, the number is in `default_unit`."""

    def __init__(self, name: str, units: Mapping[str, float], default_unit: str, example: str) -> None:
        self.name = name
        self._units = units
        self._default = default_unit
        self._example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        match = re.fullmatch(_NUMBER + r"\s*([A-Za-zµ]*)", value.strip())
        unit = (match.group(2) or self._default) if match else ""
        if match is None or unit not in self._units:
            self.fail(
                f"'{value}' is not a {self.name}; write a number and one of {', '.join(self._units)}, such as {self._example}"
            )
        return float(match.group(1)) * self._units[unit]


class _Bytes(_Quantity):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return round(super().convert(value, param, ctx))


class _Share(click.ParamType[Any]):
    """A share of something: 40% or 0.4."""

    name = "share"

    def __init__(self, of: str) -> None:
        self._of = of

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        match = re.fullmatch(_NUMBER + r"(%?)", value.strip())
        share = float(match.group(1)) / (100.0 if match.group(2) else 1.0) if match else -1.0
        if not 0.0 < share <= 1.0:
            self.fail(f"'{value}' is not a share of {self._of}; write a percentage from 0% to 100%, such as 40%")
        return share


class _Drop(click.ParamType[Any]):
    """A drop in points (1.0), or relative to the original's value (1%)."""

    name = "drop"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        match = re.fullmatch(_NUMBER + r"(%?)", value.strip())
        if match is None:
            self.fail(
                f"'{value}' is not a drop; write points such as 1.0, or a share of the original's value such as 1%"
            )
        return value.strip() if match.group(2) else float(match.group(1))


class _BitRange(click.ParamType[Any]):
    """Widths from low to high: 2-8, or one width: 8."""

    name = "bits"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"([0-9]{1,2})(?:-([0-9]{1,2}))?", value.strip())
        low, high = (int(match.group(1)), int(match.group(2) or match.group(1))) if match else (0, 0)
        if not 2 <= low <= high <= 8:
            self.fail(
                f"'{value}' is not a range of widths; write two widths from 2 to 8, such as 2-8, or one, such as 8"
            )
        return (low, high)


class _Widths(click.ParamType[Any]):
    """Single widths: 8,4,2."""

    name = "widths"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        parts = [part.strip() for part in value.split(",")]
        if not all(re.fullmatch(r"[2-8]", part) for part in parts):
            self.fail(f"'{value}' is not a list of widths; write widths from 2 to 8 separated by commas, such as 8,4,2")
        return tuple(int(part) for part in parts)


class _InputShape(click.ParamType[Any]):
    """An input's name and its static shape: x:1x3x224x224."""

    name = "name:shape"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"(.+):([0-9]+(?:x[0-9]+)*)", value.strip())
        sizes = tuple(int(size) for size in match.group(2).split("x")) if match else ()
        if match is None or 0 in sizes:
            self.fail(
                f"'{value}' is not an input shape; write the input's name and sizes above 0, such as x:1x3x224x224"
            )
        return (match.group(1), sizes)


class _InputValue(click.ParamType[Any]):
    """An input's name and the number that it always has: sr=16000."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        name, found, text = value.strip().rpartition("=")
        words: dict[str, bool] = {"true": True, "false": False}
        if found and name and text.lower() in words:
            return name, words[text.lower()]
        try:
            number = int(text) if re.fullmatch(r"[+-]?[0-9]+", text) else float(text)
        except ValueError:
            number = None
        if number is None or not name:
            self.fail(f"'{value}' gives no input a value; write the input's name and a number, such as sr=16000")
        return name, number


class _ByPattern(click.ParamType[Any]):
    """A value for all layers, or a pattern of layers and a value: 16, Conv=16."""

    def __init__(self, name: str, value: str, example: str) -> None:
        self.name = name
        self._value = re.compile(value)
        self._example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        pattern, _, text = value.strip().rpartition("=")
        match = self._value.fullmatch(text.strip())
        if match is None or value.strip().startswith("="):
            self.fail(
                f"'{value}' cannot be read; write {self._example}, or a pattern of layers before it, such as "
                f"Conv={self._example}"
            )
        return pattern.strip() or "*", self.number(match)

    def number(self, match: re.Match[str]) -> Any:
        """The value that was written."""
        return int(match.group(1))


class _RatioBounds(_ByPattern):
    def number(self, match: re.Match[str]) -> Any:
        return float(match.group(1)), float(match.group(2))


def _known(tables: Iterable[str]) -> list[str]:
    """The names in tables given as `module:attribute`, which are imported only when a shell asks."""
    found: list[str] = []
    for table in tables:
        module, _, attribute = table.partition(":")
        found += getattr(importlib.import_module(module), attribute)
    return found


class _Known(click.ParamType[Any]):
    """Any text, checked later since it may name something of the user's own; a shell completes what is built in."""

    name = "text"

    def __init__(self, table: str) -> None:
        self._table = table

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in _known([self._table]) if name.startswith(incomplete)]


class _Names(click.ParamType[Any]):
    """Names separated by commas, optionally from a list of choices; a shell completes these, or those of `tables`."""

    name = "names"

    def __init__(self, choices: tuple[str, ...] = (), tables: tuple[str, ...] = ()) -> None:
        self._choices = choices
        self._tables = tables

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        given = before.split(",")
        known = [name for name in self._choices or _known(self._tables) if name not in given]
        return [CompletionItem(before + comma + name) for name in known if name.startswith(last)]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        names = tuple(name.strip() for name in value.split(",") if name.strip())
        wrong = [name for name in names if self._choices and name not in self._choices]
        if wrong or not names:
            allowed = ", ".join(self._choices) if self._choices else "at least one name"
            self.fail(f"'{wrong[0] if wrong else value}' is not allowed; choose from {allowed}, separated by commas")
        return names


class _Accelerator(click.Path):
    """A name of `accel list`, or a file; a shell completes both. Several in the environment are separated by spaces."""

    name = "text"

    def split_envvar_value(self, rv: str) -> list[str]:
        """By spaces, as all options that may be repeated; click splits paths at colons."""
        return rv.split()

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from hwc_onnx.cost.profile import list_profiles

        names = [CompletionItem(name) for name in list_profiles() if name.startswith(incomplete)]
        return names or super().shell_complete(ctx, param, incomplete)


SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
LATENCY = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
BYTES = {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1024.0, "MiB": 1048576.0, "GiB": 1073741824.0}

Duration = _Quantity("duration", SECONDS, "s", "30m")
Latency = _Quantity("latency", LATENCY, "s", "5ms")
ByteSize = _Bytes("size", BYTES, "B", "500KB")
InputValue = _InputValue()
Share = _Share("the INT8 baseline")
Difference = _Share("the original's outputs")
Drop = _Drop()
BitRange = _BitRange()
Widths = _Widths()
InputShape = _InputShape()
PATH = click.Path()
ACCELERATOR = _Accelerator()
METRIC = _Known("hwc_onnx.accuracy.metrics:METRICS")
PRESET = _Known("hwc_onnx.accuracy.presets:PRESETS")
TASK = _Known("hwc_onnx.accuracy.outputs:TASKS")
SAMPLER = _Known("hwc_onnx.search.strategy:SAMPLERS")
DIALECT = _Known("hwc_onnx.quantization.dialects:DIALECTS")
COMPLETED = {"metric": METRIC, "preset": PRESET, "task": TASK, "sampler": SAMPLER, "samplers": SAMPLER, "dialect": DIALECT}
"""Options that take a name of a table, or text that leads to something of the user's own."""
MinChannels = _ByPattern("[pattern=]n", r"([0-9]{1,9})", "16")
RatioBounds = _RatioBounds("[pattern=]low-high", rf"{_NUMBER}\s*-\s*{_NUMBER}", "0-0.5")
LISTS = (_Widths, _Names)
"""Kinds whose values are several, separated by commas."""


def names(*choices: str, tables: tuple[str, ...] = ()) -> click.ParamType[Any]:
    """A comma-separated list, from `choices` when given; `tables` (module:attribute) are what a shell completes."""
    return _Names(choices, tables)
