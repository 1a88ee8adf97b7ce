"""What `--explain` prints can be checked by hand: products, sums and sources."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest

import hwc_onnx
from hwc_onnx.cost.profile import list_profiles, load_profile
from hwc_onnx.report.console import print_tables
from hwc_onnx.report.explain_table import explain_tables
from hwc_onnx.report.profile_table import with_nodes
from tests import tiny_models
from tests.report.samples import profiled

SAMPLES = Path(__file__).parents[2] / "sample_models"
UNITS = {"pJ": 1.0, "nJ": 1e3, "uJ": 1e6, "MAC": 1.0, "k MAC": 1e3, "M MAC": 1e6}
ROW = re.compile(
    r"^ \S.*?\s(?P<numbers>[\d.e+-]+( +[\d.e+-]+)+) +\[(?P<source>\d+)\] +(?P<marks>[a-zA-Z]+ +)?(?P<energy>[\d.]+)$"
)


def text(payloads: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    stream = io.StringIO()
    print_tables(explain_tables(payloads), stream)
    return stream.getvalue()


def explained(model: Any, key: str, accelerator: str) -> list[dict[str, Any]]:
    found = hwc_onnx.profile(model, accelerator=accelerator)
    return with_nodes([found.to_json(key)], key=key)


def check_by_hand(shown: str, total: float) -> int:
    """Multiply each row, add the rows of each component and the components; the number of rows."""
    lines = [line.rstrip() for line in shown.splitlines()]
    head = next(line for line in lines if line.startswith("Energy = count"))
    names = lines[lines.index(head) + 1]
    factor = next(value for name, value in UNITS.items() if names.endswith(name) and f" {name}" in names)
    factor = {"k MAC": 1e3, "M MAC": 1e6}.get(names[-5:], factor)
    within, together, components, rows = 0.0, 0.0, 0, 0
    for line in lines[lines.index(head) + 2 :]:
        found = ROW.match(line)
        if found:
            product = 1.0
            for number in found["numbers"].split():
                product *= float(number)
            energy = float(found["energy"])
            assert energy == pytest.approx(product / factor, rel=1e-6, abs=0.0006), line
            within += energy
            rows += 1
        elif line.startswith(" sum of "):
            stated = float(line.split()[-1])
            assert stated == pytest.approx(within, abs=0.0006 * (rows + 1)), line
            together, within, components = together + stated, 0.0, components + 1
        elif line.startswith("sum "):
            assert float(line.split()[-1]) == pytest.approx(together, abs=0.0006 * components)
            assert float(line.split()[-1]) * factor == pytest.approx(total, abs=0.0006 * factor)
            return rows
    raise AssertionError("no sum is printed")


@pytest.mark.parametrize("accelerator", list_profiles())
def test_printed_products_and_sums_can_be_checked_by_hand(accelerator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("t0", "t2"):
        payloads = explained(tiny_models.chain(), key, accelerator)
        shown = text(payloads, monkeypatch)
        (node,) = payloads[0]["nodes"]
        assert check_by_hand(shown, node["energy_pj"]["total"]) == len(node["terms"]) > 5
        assert all(len(line) <= 80 for line in shown.splitlines())


def test_a_wrong_energy_in_a_row_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin of the check above."""
    payloads = explained(tiny_models.chain(), "t0", "edge-flex")
    payloads[0]["nodes"][0]["terms"][2]["energy_pj"] *= 1.02
    with pytest.raises(AssertionError):
        check_by_hand(text(payloads, monkeypatch), payloads[0]["nodes"][0]["energy_pj"]["total"])


def test_each_number_leads_to_a_constant_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    payloads = explained(tiny_models.chain(), "t0", "edge-flex")
    shown = text(payloads, monkeypatch)
    numbers = set(re.findall(r"\[(\d+)\]", shown))
    listed = re.findall(r"^\[(\d+)\] (\S+) = (\S+) (\S+): (.+)", shown, re.MULTILINE)
    assert {number for number, *_ in listed} == numbers
    profile = load_profile("edge-flex")
    constants = {field: float(value) for _, field, value, *_ in listed}
    assert constants["mac.energy_pj"] == profile.mac.energy_pj
    assert constants["memories.dram.read_pj_per_bit"] == profile.memory("dram").read_pj_per_bit
    assert next(source for _, field, *_, source in listed if field == "vector.op_pj")


def test_mapping_is_drawn_as_loops_with_the_tiles_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = profiled(explain="conv1_output")
    shown = text(with_nodes([payload], key="conv1_output"), monkeypatch)
    drawn = shown[shown.index("Mapping, ") :].splitlines()[1:]
    assert drawn == [
        "[dram: input, weights]",
        "[weight_registers: 1 W]",
        "for OY in 4",
        "  for OX in 3",
        "    a multiply-accumulate in each PE",
        "spread over rows: C8",
        "spread over columns: K8",
    ]
    assert "sums need 26 bits at most, going by its widths; accumulators of 24 bits" in shown
    assert "weights 8 bits (density 0.5)" in shown


def test_loops_and_spread_of_a_drawn_mapping_cover_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    payloads = explained(SAMPLES / "vgg_small.onnx", _first_layer(SAMPLES / "vgg_small.onnx"), "edge-flex")
    shown = text(payloads, monkeypatch)
    covered: dict[str, int] = {}
    for name, size in re.findall(r"for (\w+) in (\d+)", shown):
        covered[name] = covered.get(name, 1) * int(size)
    for spread in re.findall(r"spread over \w+: (.+)", shown):
        for name, size in re.findall(r"([A-Z]+)(\d+)", spread):
            covered[name] = covered.get(name, 1) * int(size)
    dims = payloads[0]["nodes"][0]["mapping"]["dims"]
    assert all(covered.get(name, 1) >= size for name, size in dims.items())
    assert dims["K"] > 1


def _first_layer(path: Path) -> str:
    return hwc_onnx.inspect(path).layers[0].key


def test_a_node_that_costs_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    key = next(node.key for node in hwc_onnx.inspect(tiny_models.flatten_gemm()).nodes if node.op_type == "Flatten")
    assert "costs nothing" in text(explained(tiny_models.flatten_gemm(), key, "edge-flex"), monkeypatch)
