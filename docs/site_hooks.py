"""For the site: links to files of the repository that are no pages become their paths in words."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./([^)#]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What mkdocs calls with the text of each page."""
    return OUTSIDE.sub(lambda found: f"{found.group(1)} (`{found.group(2)}`)", markdown)
