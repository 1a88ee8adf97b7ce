"""The report in a real browser: figures drawn, no errors, no requests, no overflow on a phone, enough contrast, usable by keys."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api")

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

CONTRAST = """
() => {
  function channels(text) { return text.match(/[0-9.]+/g).slice(0, 3).map(Number); }
  function light(rgb) {
    return rgb.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  }
  function paper(node) {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (!/rgba\\(.*, 0\\)/.test(colour)) { return channels(colour); }
    }
    return [255, 255, 255];
  }
  let worst = 21;
  for (const node of document.querySelectorAll('h1, h2, p, li, dt, dd, small, th, td, caption, figcaption, a, summary, pre, button')) {
    if (node.closest('.plotly-graph-div')) { continue; }
    const [a, b] = [light(channels(getComputedStyle(node).color)), light(paper(node))].sort((x, y) => y - x);
    worst = Math.min(worst, (a + 0.05) / (b + 0.05));
  }
  return worst;
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(params=[("light", 1200), ("dark", 1200), ("light", 360), ("dark", 360)], ids=lambda one: f"{one[0]}-{one[1]}")
def opened(request: pytest.FixtureRequest, browser: object, run_folder: Path) -> Iterator[tuple[object, list[str], list[str]]]:
    scheme, width = request.param
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[attr-defined]
    tab = context.new_page()
    errors: list[str] = []
    requests: list[str] = []
    tab.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("request", lambda asked: requests.append(asked.url) if not asked.url.startswith(("data:", "blob:")) else None)
    tab.goto((run_folder / "report.html").as_uri())
    tab.wait_for_function("document.querySelectorAll('.plotly-graph-div .main-svg').length >= 7")
    yield tab, errors, requests
    context.close()


def test_page_is_drawn_without_errors_requests_or_overflow(opened, run_folder: Path) -> None:  # type: ignore[no-untyped-def]
    tab, errors, requests = opened
    assert errors == [] and requests == [(run_folder / "report.html").as_uri()]
    figures = tab.locator(".plotly-graph-div")
    drawn = [figures.nth(place).locator(".main-svg").count() > 0 for place in range(figures.count())]
    assert len(drawn) >= 7 and all(drawn)
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert tab.evaluate(CONTRAST) >= 4.5
    tab.add_style_tag(content="p { color: #888 !important; background: #777 !important }")  # a broken twin
    assert tab.evaluate(CONTRAST) < 4.5


def test_text_of_figures_follows_the_theme(opened) -> None:  # type: ignore[no-untyped-def]
    tab, _, _ = opened
    ink = tab.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--ink').trim()")
    assert tab.evaluate("document.getElementById('figure-search').layout.font.color") == ink


def test_a_plan_of_the_front_gives_its_command_by_key(opened) -> None:  # type: ignore[no-untyped-def]
    tab, _, _ = opened
    before = tab.locator("#command").text_content()
    tab.locator("section[aria-labelledby=front] summary").focus()
    tab.keyboard.press("Enter")
    buttons = tab.locator("button[data-plan]")
    last = buttons.nth(buttons.count() - 1)
    last.focus()
    tab.keyboard.press("Enter")
    command = tab.locator("#command").text_content()
    assert command.startswith("hwc-onnx apply ") and last.get_attribute("data-plan") in command
    assert command != before or buttons.count() == 1
