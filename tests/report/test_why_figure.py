"""The heat map of `why` shows the record's own numbers, and marks what was not measured."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from hwc_onnx.report.sensitivity_figure import _luminance, _Scale, why_figure
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


def test_numbers_stand_out_from_every_colour() -> None:
    scale = _Scale([1e-6, 1.0])
    for step in range(601):
        shades = [[int(colour[place : place + 2], 16) for place in (1, 3, 5)] for colour in scale.colour(10.0 ** (step / 100 - 6))]
        dark, light = sorted(_luminance(*shade) for shade in shades)
        assert (light + 0.05) / (dark + 0.05) >= 4.5
