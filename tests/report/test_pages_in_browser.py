"""The pages beside the report in a real browser: those of `--figure` and the documentation, on a phone and in the dark as well."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwc_onnx.report.compare_figure import compare_page
from hwc_onnx.report.profile_figure import figure_page
from tests.report.browser import CONTRAST, CUT, FIGURES, SCREENS, Tab, shown
from tests.report.samples import profiled
from tests.report.test_compare_report import payload

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))
OUTLINE = """
() => [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map(node => Number(node.tagName[1]))
"""
MUTE = "() => [...document.querySelectorAll('img')].filter(node => !node.alt).length"


def named() -> list[dict[str, object]]:
    """Two accelerators, and nodes with names as long as they are in the wild."""
    payloads = [profiled("edge-flex"), profiled("edge-tpu-64x64", 3.0)]
    for one in payloads:
        for node in one["nodes"]:
            node["key"] = f"/model/backbone/stages.3/blocks.11/attention/projection/{node['key']}"
    return payloads


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {"profile": figure_page(named(), "Energy of m.onnx"), "compare": compare_page(payload())}
    for name, page in made.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


@pytest.fixture(params=[(name, *screen) for name in ("profile", "compare") for screen in SCREENS], ids=lambda one: "-".join(map(str, one)))
def figure_tab(request: pytest.FixtureRequest, browser: object, pages: dict[str, Path]) -> Iterator[Tab]:
    name, scheme, width = request.param
    with shown(browser, pages[name], scheme, width, figures={"profile": 2, "compare": 1}[name]) as tab:
        yield tab


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built."""
    place = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(place)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return place


def test_figures_are_drawn_without_errors_requests_or_overflow(figure_tab: Tab) -> None:
    assert figure_tab.errors == [] and [asked.split(":")[0] for asked in figure_tab.requests] == ["file"]
    assert not figure_tab.overflows()
    assert figure_tab.page.evaluate(CUT) == []
    assert figure_tab.page.evaluate(MUTE) == 0


def test_words_can_be_read(figure_tab: Tab) -> None:
    assert figure_tab.page.evaluate(CONTRAST) >= 4.5
    seen, worst = figure_tab.page.evaluate(FIGURES)
    assert seen >= 8 and worst >= 4.5
    figure_tab.page.add_style_tag(content="p, svg text { color: #888 !important; fill: #888 !important } body, p { background: #777 !important }")
    assert figure_tab.page.evaluate(CONTRAST) < 4.5 and figure_tab.page.evaluate(FIGURES)[1] < 4.5, "the broken twin"


def test_numbers_of_a_figure_stand_in_a_table_too(figure_tab: Tab) -> None:
    assert figure_tab.page.locator("table").count() == figure_tab.page.locator(".plotly-graph-div").count()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documentation_can_be_read_on_a_phone(browser: object, site: Path, name: str) -> None:
    with shown(browser, site / f"{name}.html", "light", 360, figures=0) as tab:
        assert not tab.overflows() and tab.page.evaluate(MUTE) == 0
        assert tab.page.evaluate(CONTRAST) >= 4.5
        levels = tab.page.evaluate(OUTLINE)
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), levels
        assert [asked for asked in tab.requests if not asked.startswith("file:")] == []
