"""What a real browser can say of a page: contrast of words, words that are cut, what is wider than the screen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
SCREENS = [("light", 1200), ("dark", 1200), ("light", 360), ("dark", 360)]
"""Colour schemes and widths in which pages are looked at."""

COLOURS = """
  function channels(text) { return text.match(/[0-9.]+/g).slice(0, 3).map(Number); }
  function light(rgb) {
    return rgb.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  }
  function contrast(one, other) {
    const [a, b] = [light(one), light(other)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  }
  function paper(node) {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (!/rgba\\(.*, 0\\)/.test(colour)) { return channels(colour); }
    }
    return [255, 255, 255];
  }
"""
CONTRAST = f"""
() => {{ {COLOURS}
  let worst = 21;
  for (const node of document.querySelectorAll('h1, h2, p, li, dt, dd, small, th, td, caption, figcaption, a, summary, pre, button')) {{
    const box = node.getBoundingClientRect();
    if (node.closest('.plotly-graph-div') || !box.width || !node.textContent.trim()) {{ continue; }}
    worst = Math.min(worst, contrast(channels(getComputedStyle(node).color), paper(node)));
  }}
  return worst;
}}
"""
FIGURES = f"""
() => {{ {COLOURS}
  let worst = 21, seen = 0;
  for (const node of document.querySelectorAll('.plotly-graph-div svg text')) {{
    if (node.closest('.heatmap-label, .bars') || !node.getBoundingClientRect().width) {{ continue; }}
    seen += 1;
    worst = Math.min(worst, contrast(channels(getComputedStyle(node).fill), paper(node)));
  }}
  return [seen, worst];
}}
"""
"""Words of figures that stand on the paper."""
CUT = """
() => {
  const found = [];
  for (const drawn of document.querySelectorAll('.plotly-graph-div')) {
    const box = drawn.getBoundingClientRect();
    for (const words of drawn.querySelectorAll('svg text')) {
      const place = words.getBoundingClientRect();
      const out = place.right > box.right + 1 || place.left < box.left - 1 || place.bottom > box.bottom + 1 || place.top < box.top - 1;
      if (place.width && out) { found.push([drawn.id, words.textContent]); }
    }
  }
  return found;
}
"""
"""Words that reach out of their figure."""


@dataclass
class Tab:
    """A page as it is shown; `errors` and `requests` are what the browser said and asked for since."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def overflows(self) -> bool:
        """Whether the page is wider than the screen."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


@contextmanager
def shown(browser: Any, place: Path, scheme: str, width: int, figures: int) -> Iterator[Tab]:
    """The page `place` once its figures are drawn."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    tab = Tab(context.new_page())
    tab.page.on("console", lambda message: tab.errors.append(message.text) if message.type in ("error", "warning") else None)
    tab.page.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.page.on("request", lambda asked: tab.requests.append(asked.url) if not asked.url.startswith(("data:", "blob:")) else None)
    tab.page.goto(place.as_uri())
    tab.page.wait_for_function(f"document.querySelectorAll('.plotly-graph-div .main-svg').length >= {figures}")
    yield tab
    context.close()
