"""A planted fault is named, and its twin without the fault is not blamed for it."""

from __future__ import annotations

import re

import pytest

from tests.diagnosis.planted import FACTOR, clean, inputs, large_bias, looked_at, named, separable, two_convolutions


def test_weights_of_one_input_channel_that_set_the_scale_of_all_rows_are_named() -> None:
    found = looked_at(two_convolutions(weight_factor=FACTOR), "w4a16")
    cause, _ = named(found, "second")
    assert cause == "outlier_weights"
    suspect = next(suspect for suspect in found.suspects if suspect.key == "second")
    assert suspect.cause is not None
    assert suspect.cause.numbers["channel"] == 3
    assert suspect.cause.numbers["range_ratio"] == pytest.approx(FACTOR, rel=0.4)
    assert suspect.cause.numbers["rounding_ratio"] > 4
    assert "outlier_weights" not in named(found, "first")[1]
    assert "outlier_weights" not in named(clean("w4a16"), "second")[1]


def test_rare_values_far_outside_are_named_as_outliers_of_the_input() -> None:
    found = looked_at(two_convolutions(), "w16a8", inputs(spikes=True))
    cause, _ = named(found, "first")
    assert cause == "outlier_input"
    suspect = next(suspect for suspect in found.suspects if suspect.key == "first")
    assert suspect.cause is not None and suspect.cause.numbers["range_ratio"] > 4
    assert suspect.cause.numbers["level_share"] < 1 / 8
    assert "outlier_input" not in named(clean("w16a8"), "first")[1]


def test_one_strong_channel_of_the_input_is_named() -> None:
    found = looked_at(two_convolutions(channel_factor=FACTOR), "w16a6")
    cause, _ = named(found, "second")
    assert cause == "strong_input_channel"
    suspect = next(suspect for suspect in found.suspects if suspect.key == "second")
    assert suspect.cause is not None and suspect.cause.numbers["channel"] == 3
    assert suspect.cause.numbers["median_levels"] < 8
    assert "strong_input_channel" not in named(clean("w16a6"), "second")[1]


def test_depthwise_layer_has_too_few_weights_to_make_up_with() -> None:
    found = looked_at(separable(depthwise=True), "w3a16")
    cause, _ = named(found, "middle")
    assert cause == "few_taps"
    suspect = next(suspect for suspect in found.suspects if suspect.key == "middle")
    assert suspect.cause is not None and suspect.cause.numbers["taps"] == 9
    twin = looked_at(separable(depthwise=False), "w3a16")
    assert all("few_taps" not in named(twin, other.key)[1] for other in twin.suspects)


def test_bias_beyond_int32_is_named_and_costs_no_accuracy() -> None:
    found = looked_at(large_bias(bias=20.0), "w8a8")
    suspect = next(suspect for suspect in found.suspects if suspect.key == "first")
    overflow = next(remark for remark in suspect.remarks if remark.name == "bias_overflow")
    assert overflow.part is None and overflow.numbers["channels"] == 1 and overflow.numbers["largest"] > 1
    assert "bias_overflow" not in named(looked_at(large_bias(bias=0.2), "w8a8"), "first")[1]


def test_weights_without_repair_are_said_to_lack_it() -> None:
    found = looked_at(two_convolutions(), "w3a16", recovery="none")
    cause, _ = named(found, "second")
    assert cause == "not_repaired"
    suspect = next(suspect for suspect in found.suspects if suspect.key == "second")
    assert suspect.best is not None and suspect.best.remedy.change == "--recovery full"
    assert "not_repaired" not in named(clean("w3a16"), "second")[1]


def test_more_inputs_than_calibration_samples_are_named() -> None:
    from tests.tiny_models import Builder

    def fitted(channels: int) -> set[str]:
        b = Builder(["batch", channels, 1, 1], 4)
        hidden = b.node("Relu", b.gemm(b.node("Flatten", "x", axis=1), channels, 8, out="wide"))
        model = b.finish(b.gemm(hidden, 8, 5), ["batch", 5])
        x = inputs().reshape(len(inputs()), -1)[:, :channels, None, None]
        return named(looked_at(model, "w3a16", x), "wide")[1]

    assert "few_samples" in fitted(180)
    assert "few_samples" not in fitted(24)


def test_pruned_channels_are_told_with_what_becomes_of_their_readers() -> None:
    found = looked_at(two_convolutions(), "w16a16,coarse=l1:0.5")
    assert named(found, "first")[0] == "channels_removed"
    suspect = next(suspect for suspect in found.suspects if suspect.key == "first")
    assert suspect.cause is not None and suspect.cause.numbers["kept"] == 4 and set(suspect.parts) == {"channels"}
    stuck = looked_at(two_convolutions(), "w16a16,coarse=l1:0.5", recovery="none")
    assert named(stuck, "first")[0] == "inputs_not_refitted"


def test_attention_is_named_for_its_softmax() -> None:
    from tests import tiny_models

    x = tiny_models.feeds(tiny_models.attention(), 640, seed=3)["x"]
    found = looked_at(tiny_models.attention(), "w16a4", x)
    causes = {suspect.key: named(found, suspect.key) for suspect in found.suspects}
    assert any("softmax_input" in every for _, every in causes.values())
    assert any("attention_scores" in every for _, every in causes.values())
    assert all("softmax_input" not in every for _, every in [named(clean("w16a8"), "first"), named(clean("w16a8"), "second")])


@pytest.mark.parametrize("bits", [3, 8])
def test_no_cause_says_that_something_is_1_times_something_else(bits: int) -> None:
    found = looked_at(separable(depthwise=True), f"w{bits}a8", inputs(spikes=True))
    said = [one.text for suspect in found.suspects for one in (*suspect.remarks, suspect.cause) if one is not None]
    assert said and not any(re.search(r"(?<![\d.])1 times", text) for text in said)
    assert any("each output has 9 weights" in text for text in said)
