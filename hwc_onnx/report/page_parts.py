"""Pieces of HTML that the report page is made of: tables, figures with words beside them, commands. All text is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


CONFIG = {"displaylogo": False, "responsive": True, "displayModeBar": False}
"""Options of plotly.js."""
CLEAR = "rgba(0,0,0,0)"


def text(value: object) -> str:
    """Escaped for HTML."""
    return html.escape(str(value))


def section(name: str, title: str, *parts: str) -> str:
    """A part of the page with a heading that the list of contents points to."""
    return f'<section aria-labelledby="{name}">\n<h2 id="{name}">{text(title)}</h2>\n' + "\n".join(parts) + "\n</section>"


def paragraph(words: str, kind: str = "") -> str:
    """A sentence or two."""
    return f'<p class="{kind}">{text(words)}</p>' if kind else f"<p>{text(words)}</p>"


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[object]], words: Sequence[int] = (), sentences: Sequence[int] = ()
) -> str:
    """A table; the first column names the row, the columns `words` hold words instead of numbers, `sentences` whole sentences."""
    kinds = [
        ' class="words"' if place in words else ' class="words said"' if place in sentences else "" for place in range(len(head))
    ]
    top = "".join(f'<th scope="col"{kind}>{text(name)}</th>' for name, kind in zip(head, kinds, strict=True))
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{text(cell)}</th>' if place == 0 else f"<td{kinds[place]}>{text(cell)}</td>"
            for place, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{text(caption)}"><table><caption>{text(caption)}</caption>\n'
        f"<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def folded(summary: str, *parts: str) -> str:
    """What is shown on request."""
    return f"<details><summary>{text(summary)}</summary>\n" + "\n".join(parts) + "\n</details>"


def clear(figure: Figure, height: int, **layout: Any) -> Figure:
    """The layout that all figures share.

    Backgrounds stay clear and the script of the page sets the colours of text and lines, so that a figure follows the reader's theme.
    """
    shared: dict[str, Any] = {
        "height": height,
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "margin": {"l": 10, "r": 10, "t": 30, "b": 45},
        "font": {"size": 13},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0.0, "traceorder": "normal"},
        "hoverlabel": {"align": "left"},
    }
    figure.update_layout(**{**shared, **layout})
    figure.update_xaxes(automargin=True, fixedrange=True)
    figure.update_yaxes(automargin=True, fixedrange=True)
    return figure


SIDEWAYS = '<span class="sideways"> The figure is wider than this screen: it scrolls sideways.</span>'


def figure(name: str, drawn: Figure, said: str, least: int = 0) -> str:
    """A figure with what it says in words; one that needs `least` pixels scrolls sideways by itself on a narrow screen, by keys too."""
    from plotly.io import to_html

    inner = to_html(drawn, full_html=False, include_plotlyjs=False, div_id=f"figure-{name}", config=CONFIG)
    image = f'<div role="img" aria-label="{text(said)}">{inner}</div>'
    if not least:
        return f'<figure><div class="wide">{image}</div><figcaption>{text(said)}</figcaption></figure>'
    label = f"Figure that scrolls sideways: {name}"
    return (
        f'<figure><div class="wide" tabindex="0" role="region" aria-label="{text(label)}"><div style="min-width:{least}px">{image}</div></div>'
        f"<figcaption>{text(said)}{SIDEWAYS}</figcaption></figure>"
    )


def command(line: str) -> str:
    """A command to copy."""
    return f"<pre>{text(line)}</pre>"


def listed(items: Iterable[Any]) -> str:
    """A list of sentences."""
    return "<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>"
