"""The page of `--figure` holds the figures of the payload and asks nothing of a network."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import onnx
import pytest

from hwc_onnx.cost.types import COMPONENTS
from hwc_onnx.errors import UsageError
from hwc_onnx.report.profile_figure import checked_path, figure_page, write_figure
from tests import tiny_models
from tests.cli.running import hwc
from tests.report.samples import profiled

LOADING = {"src", "href", "data", "poster", "action", "srcset"}


class Page(HTMLParser):
    """Attributes that make a browser load something, and the text of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.scripts: list[str] = []
        self.styles = ""
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        found = [value or "" for name, value in attrs if name in LOADING]
        self.loaded += [value for value in found if not value.startswith(("#", "data:"))]
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.inside == "style":
            self.styles += data


def figures(page: str) -> list[list[dict[str, Any]]]:
    """The traces of each figure, as plotly.js is given them."""
    found = []
    for script in Page(page).scripts:
        match = re.search(r"Plotly\.newPlot\(\s*\"figure-\w+\",\s*", script)
        if match:
            traces, _ = json.JSONDecoder().raw_decode(script, match.end())
            found.append(traces)
    return found


def test_page_loads_nothing_and_carries_the_library_once() -> None:
    page = Page(figure_page([profiled(), profiled("edge-tpu-64x64", 2.0)], "Energy of m.onnx"))
    assert page.loaded == []
    assert "url(" not in page.styles and "@import" not in page.styles
    assert sum("plotly.js v" in script for script in page.scripts) == 1


def test_a_page_that_loads_its_library_from_a_network_is_seen() -> None:
    """The broken twin."""
    assert Page('<script src="https://cdn.plot.ly/plotly.js"></script>').loaded


def test_bars_are_the_energies_of_nodes_and_components() -> None:
    payloads = [profiled(), profiled("edge-tpu-64x64", 3.0)]
    shares, nodes = figures(figure_page(payloads, "m"))
    for trace in shares:
        expected = [100 * p["totals"]["energy_pj"][trace["name"]] / p["totals"]["energy_pj"]["total"] for p in payloads]
        assert trace["x"] == pytest.approx(expected)
    assert sum(trace["x"][0] for trace in shares) == pytest.approx(100.0)
    assert len(nodes) == 2 * len(COMPONENTS)
    for number, payload in enumerate(payloads):
        for trace in nodes[number * len(COMPONENTS) : (number + 1) * len(COMPONENTS)]:
            energies = [node["energy_pj"][trace["name"]] for node in payload["nodes"]]
            assert [1000.0 * x for x in trace["x"]] == pytest.approx(energies), "in nJ"
    assert nodes[0]["xaxis"] != nodes[-1]["xaxis"]


def test_hovering_tells_the_counts() -> None:
    *_, nodes = figures(figure_page([profiled()], "m"))
    buffer = next(trace for trace in nodes if trace["name"] == "buffer")
    assert "activation_buffer I: 100 read, 0 written" in buffer["customdata"][0]
    assert "bound by dram" in buffer["customdata"][0] and "9.216k MACs" in buffer["customdata"][0]


def test_hovering_tells_products_that_can_be_checked_by_hand(tmp_path: Path) -> None:
    onnx.save(tiny_models.chain(), tmp_path / "m.onnx")
    result = hwc("profile", tmp_path / "m.onnx", "--figure", tmp_path / "m.html")
    assert result.exit_code == 0, result.stderr
    *_, nodes = figures((tmp_path / "m.html").read_text(encoding="utf-8"))
    checked = 0
    for trace in nodes:
        for shown in trace["customdata"]:
            checked += check_products(shown)
    assert checked > 20
    dram = next(trace for trace in nodes if trace["name"] == "dram")
    assert re.search(r"dram: read I for \S+: 192 words x 16 bit x 8 pJ/bit = 24\.58 nJ", dram["customdata"][0])


def check_products(shown: str) -> int:
    """Multiply each product of a hover text; how many there were."""
    found = re.findall(r"([\d.]+)([kMGT]?) [A-Za-z -]+?((?: x [\d.e+-]+(?: bit)?)*?) x ([\d.e+-]+) pJ(?:/bit)? = ([\d.]+) (pJ|nJ|uJ|mJ)", shown)
    for count, prefix, factors, constant, energy, unit in found:
        product = float(count) * {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[prefix] * float(constant)
        for factor in re.findall(r"[\d.e+-]+", factors.replace("bit", "").replace("x", "")):
            product *= float(factor)
        assert float(energy) * {"pJ": 1.0, "nJ": 1e3, "uJ": 1e6, "mJ": 1e9}[unit] == pytest.approx(product, rel=2e-3)
    assert len(found) == shown.count(" = ")
    return len(found)


def test_cheaper_nodes_together_sum_products_of_the_same_factors() -> None:
    payload = profiled(explain=True)
    payload["nodes"] = [node | {"key": f"{node['key']}{i}"} for i in range(5) for node in payload["nodes"]]
    *_, nodes = figures(figure_page([payload], "m", 1))
    dram = next(trace for trace in nodes if trace["name"] == "dram")
    assert "something of dram: 1k words x 1 bit x 1 pJ/bit = 1 nJ" in dram["customdata"][0]
    assert "something of dram: 4k words x 1 bit x 1 pJ/bit = 4 nJ" in dram["customdata"][1]


def test_cheaper_nodes_share_a_bar_so_that_the_sum_stays() -> None:
    payload = profiled()
    payload["nodes"] = [node | {"key": f"{node['key']}{i}"} for i in range(40) for node in reversed(payload["nodes"])]
    for top, bars in ((5, 6), (None, 61)):
        *_, nodes = figures(figure_page([payload], "m", top))
        mac = next(trace for trace in nodes if trace["name"] == "mac")
        assert len(mac["x"]) == bars
        assert sum(sum(trace["x"]) for trace in nodes) * 1000 == pytest.approx(
            sum(node["energy_pj"]["total"] for node in payload["nodes"])
        )


def test_a_model_that_costs_nothing_has_a_page() -> None:
    payload = profiled(scale=0.0)
    *_, nodes = figures(figure_page([payload], "m"))
    assert nodes == []


def test_names_and_titles_are_text_not_markup() -> None:
    payload = profiled()
    payload["nodes"][0]["key"] = "<script>alert(1)</script>"
    page = figure_page([payload], "<b>m</b>")
    assert "<h1>&lt;b&gt;" in page and "alert(1)</script>" not in page


def test_path_is_checked_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.html"):
        checked_path(str(tmp_path / "energy.png"))
    with pytest.raises(UsageError, match=r"folder .* does not exist"):
        checked_path(str(tmp_path / "missing" / "energy.html"))
    folder = tmp_path / "folder.html"
    folder.mkdir()
    with pytest.raises(UsageError, match=r"cannot be written .* with --figure"):
        write_figure(folder, [profiled()], "m")
