"""What all pages share: one HTML file with its style, its script and plotly.js, which asks nothing of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hwc_onnx.report.page_parts import text
from hwc_onnx.report.page_style import SCRIPT, STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; img-src data: blob:"
"""The browser itself refuses requests: whatever a name in the model might smuggle in, nothing is fetched."""


def framed(title: str, parts: Sequence[str], contents: Mapping[str, str]) -> str:
    """A whole page: `parts` are HTML, `contents` the words of the list of contents by the section that they lead to."""
    from plotly.offline import get_plotlyjs

    links = "".join(f'<li><a href="#{name}">{text(words)}</a></li>' for name, words in contents.items())
    listed = f'\n<nav aria-label="Contents"><ul>{links}</ul></nav>' if contents else ""
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<style>{STYLE}</style>\n<script>{get_plotlyjs()}</script></head>\n"
        f'<body><a class="skip" href="#content">To the content</a>\n<header><h1>{text(title)}</h1>{listed}</header>\n'
        f'<main id="content">\n{body}\n</main>\n<script>{SCRIPT}</script></body></html>\n'
    )
