"""The heat map of `why` shows the record's own numbers, and marks what was not measured."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from hwc_onnx.report.sensitivity_figure import why_figure
from tests.diagnosis.planted import looked_at, two_convolutions


def test_each_layer_has_its_damage_its_parts_and_its_cause() -> None:
    found = looked_at(two_convolutions(), "w3a4").to_json()
    drawn = why_figure(found, "What <net> loses")
    said = [element.text or "" for element in ElementTree.fromstring(drawn).iter() if element.tag.endswith("title")]
    assert "What <net> loses" in said
    for layer in found["layers"]:
        alone = f"{layer['key']}, all that the plan does to the layer: damage {layer['alone']['damage']:.3g}"
        assert any(text.startswith(alone) for text in said)
        for part, cell in layer["parts"].items():
            assert any(text.startswith(f"{layer['key']}, its {part} alone: damage {cell['damage']:.3g}") for text in said)
        assert layer["cause"]["name"].replace("_", " ") in drawn
    assert not any("channels alone" in text for text in said)
    assert "href" not in drawn and "<script" not in drawn
