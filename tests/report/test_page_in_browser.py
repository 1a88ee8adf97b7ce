"""The report in a real browser: figures drawn, no errors, no requests, no overflow on a phone, enough contrast, usable by keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.browser import BROWSER, COLOURS, CONTRAST, CUT, FIGURES, SCREENS, shown

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

CELLS = f"""
async () => {{ {COLOURS}
  let worst = 21, seen = 0;
  for (const shown of document.querySelectorAll('#figure-layers .heatmaplayer image')) {{
    const picture = new Image();
    picture.src = shown.getAttribute('xlink:href') || shown.getAttribute('href');
    await picture.decode();
    const canvas = document.createElement('canvas'), box = shown.getBoundingClientRect();
    [canvas.width, canvas.height] = [picture.width, picture.height];
    const drawn = canvas.getContext('2d');
    drawn.drawImage(picture, 0, 0);
    for (const words of document.querySelectorAll('#figure-layers .heatmap-label text')) {{
      const place = words.getBoundingClientRect();
      const x = (place.left + place.width / 2 - box.left) / box.width, y = (place.top + place.height / 2 - box.top) / box.height;
      if (x < 0 || x > 1 || y < 0 || y > 1) {{ continue; }}
      const pixel = Array.from(drawn.getImageData(x * picture.width, y * picture.height, 1, 1).data);
      seen += pixel[3] === 255;
      worst = Math.min(worst, contrast(channels(getComputedStyle(words).fill), pixel.slice(0, 3)));
    }}
  }}
  return [seen, worst];
}}
"""
"""Numbers in the cells of the heat strip, against the pixel behind them."""
SCROLLING = """
() => [...document.querySelectorAll('*')].filter(node => node.scrollWidth > node.clientWidth && getComputedStyle(node).overflowX === 'auto')
  .map(node => [node.tabIndex, node.getAttribute('role'), Boolean(node.getAttribute('aria-label')), Boolean(node.querySelector('svg'))])
"""
POINTS = """
() => {
  const drawn = document.getElementById('figure-front'), box = drawn.getBoundingClientRect();
  const [across, up] = [drawn._fullLayout.xaxis, drawn._fullLayout.yaxis], found = [];
  drawn.data.forEach((trace, place) => {
    if (!trace.name.startsWith('front')) { return; }
    trace.customdata.forEach((plan, number) => {
      const point = drawn.calcdata[place][number], [x, y] = [across.c2p(point.x), up.c2p(point.y)];
      if (y > 0 && y < up._length) { found.push([plan, box.left + across._offset + x, box.top + up._offset + y]); }
    });
  });
  return found;
}
"""
"""Plans of the front with the pixels that their marks are centred on."""


@pytest.fixture(params=SCREENS, ids=lambda one: f"{one[0]}-{one[1]}")
def opened(request: pytest.FixtureRequest, browser: object, run_folder: Path) -> Iterator[tuple[object, list[str], list[str]]]:
    with shown(browser, run_folder / "report.html", *request.param, figures=7) as tab:
        yield tab.page, tab.errors, tab.requests


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


def test_words_of_figures_can_be_read(opened) -> None:  # type: ignore[no-untyped-def]
    tab, _, _ = opened
    for measure in (FIGURES, CELLS):
        seen, worst = tab.evaluate(measure)
        assert seen >= 10 and worst >= 4.5
    tab.add_style_tag(content="svg text { fill: #888 !important } body { background: #777 !important }")  # a broken twin
    assert tab.evaluate(FIGURES)[1] < 4.5 and tab.evaluate(CELLS)[1] < 4.5


def test_no_words_of_a_figure_are_cut(opened) -> None:  # type: ignore[no-untyped-def]
    tab, _, _ = opened
    assert tab.locator("#figure-steps").count() == 1
    assert tab.evaluate(CUT) == []


def test_what_scrolls_sideways_can_be_scrolled_by_keys(opened) -> None:  # type: ignore[no-untyped-def]
    tab, _, _ = opened
    tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    found = tab.evaluate(SCROLLING)
    assert all((index, role, named) == (0, "region", True) for index, role, named, _ in found)
    narrow = tab.viewport_size["width"] == 360
    assert any(drawn for *_, drawn in found) is narrow and (len(found) >= 4 or not narrow)


def test_a_point_of_the_front_gives_its_command_by_click(opened) -> None:  # type: ignore[no-untyped-def]
    tab, _, _ = opened
    tab.locator("#figure-front").scroll_into_view_if_needed()
    points = tab.evaluate(POINTS)
    assert points
    for plan, x, y in points:
        tab.evaluate("document.getElementById('command').textContent = ''")
        # a neighbour may be nearer than a point that it covers
        near = {plan, *(name for name, a, b in points if abs(a - x) < 25 and abs(b - y) < 25)}
        assert _pointed(tab, x, y, near), f"no label of {sorted(near)} at ({x:.0f}, {y:.0f})"
        assert [words for name, words in tab.evaluate(CUT) if name == "figure-front"] == []
        tab.mouse.click(x, y)
        tab.wait_for_function("document.getElementById('command').textContent !== ''", timeout=5000)
        shown = tab.locator("#picked").text_content()
        assert shown.startswith("Plan ") and shown[5:-1] in tab.locator("#command").text_content()
        assert shown[5:-1] in near


def _pointed(tab, x: float, y: float, names: set[str]) -> bool:  # type: ignore[no-untyped-def]
    """Move the mouse about a mark until the label of one of these plans is shown: a click goes to the plan whose label is shown."""
    for _ in range(100):
        tab.mouse.move(x - 4, y - 4)
        tab.mouse.move(x, y)
        tab.wait_for_timeout(120)  # the figure looks at the mouse at most every 50 ms
        label = tab.locator("#figure-front .hoverlayer").text_content()
        if "click for the command" in label and any(f"{name}:" in label for name in names):
            return True
    return False


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
