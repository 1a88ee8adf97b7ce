"""Printing to a stream: JSON that any parser reads, tables that fit 80 columns."""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Sequence
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.table import Table

WIDTH = 80
"""Columns that everything but long names fits."""


class _Console(Console):
    """A console that leaves a closed pipe to its caller."""

    def on_broken_pipe(self) -> None:
        """Called while the error is handled: raise it again."""
        self.quiet = True
        raise BrokenPipeError


def print_json(payload: dict[str, Any] | list[Any], stream: TextIO) -> None:
    """Write `payload` as JSON (no NaN or infinity, which JSON does not have: a ValueError)."""
    stream.write(json.dumps(payload, indent=1, allow_nan=False) + "\n")


def print_tables(tables: Sequence[RenderableType], stream: TextIO) -> None:
    """Write tables and lines; long paths are not broken."""
    console = _Console(file=stream, highlight=False, markup=False)
    for table in tables:
        console.print(table, soft_wrap=isinstance(table, str))


def tables_text(tables: Sequence[RenderableType]) -> str:
    """What `print_tables` would write."""
    stream = io.StringIO()
    print_tables(tables, stream)
    return stream.getvalue()


def wrapped(text: str, indent: str = "  ") -> str:
    """A sentence over lines of at most 80 columns, the later ones indented; names are never broken."""
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def table(title: str | None, *columns: str, left: int = 1) -> Table:
    """An empty table: the first `left` columns are words, the others right-aligned numbers that are never cut."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for position, name in enumerate(columns):
        words = position < left
        made.add_column(
            name,
            justify="left" if words else "right",
            overflow="fold" if words else "ellipsis",
            no_wrap=not words,
            min_width=len(name),
        )
    return made
