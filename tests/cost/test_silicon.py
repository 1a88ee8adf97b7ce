"""What Eyeriss measured on AlexNet, and what the model says with the chip's own mapping."""

from functools import cache

import pytest

from benchmarks.silicon import ALEXNET, FITTED, RowStationary, chip, modelled, picojoules
from hwc_onnx.cost.profile import load_profile


@cache
def account(gate=True, coding=True):
    found = modelled(ALEXNET, chip(gate, coding))
    unit = picojoules(found)
    judged = [one for one in found if one.layer.name in FITTED]
    energy = {one.layer.name: one.per_mac * unit / one.layer.pj_per_mac for one in judged}
    traffic = {one.layer.name: one.dram_mb / one.layer.dram_mb for one in judged}
    return energy, traffic, {one.layer.name: one.buffer_mb / one.layer.buffer_mb for one in found}


def off(ratios, share):
    return [name for name, ratio in ratios.items() if abs(ratio - 1) > share]


def test_energy_of_a_mac_follows_the_chip_within_13_percent_up_to_one_factor():
    assert off(account()[0], 0.13) == []
    assert len(off(account(gate=False)[0], 0.13)) >= 2, "without gating"


def test_dram_traffic_is_within_15_percent_of_the_measured():
    assert off(account()[1], 0.15) == []
    assert off(account(coding=False)[1], 0.15) == list(FITTED), "without run-length coding"


def test_buffer_traffic_agrees_where_the_recalled_parameters_do():
    assert off({name: ratio for name, ratio in account()[2].items() if name != "CONV3"}, 0.09) == []


def test_measured_energies_are_the_published_line():
    """Least squares of CONV2..5: 17.7 (1 - 0.61 z) pJ/MAC."""
    layers = [layer for layer in ALEXNET if layer.name in FITTED]
    line = {layer.name: 17.7 * (1 - 0.61 * layer.input_zeros) / layer.pj_per_mac for layer in layers}
    assert off(line, 0.13) == []
    assert sum(layer.dims.macs for layer in ALEXNET) == pytest.approx(2.66e9, rel=0.005)


@pytest.mark.parametrize("layer", ALEXNET, ids=lambda layer: layer.name)
def test_parameters_use_the_published_number_of_pes_and_fit_the_chip(layer):
    active = dict(zip([one.name for one in ALEXNET], (154, 135, 156, 156, 156), strict=True))
    one = layer.parameters
    assert layer.dims.FY * one.e * one.r * one.t == active[layer.name]
    assert one.fits(layer.dims, load_profile("eyeriss-v1"))


def test_parameters_that_overfill_a_scratchpad_are_noticed():
    """The broken twin: a window of 15 words where 12 fit, filters of 240 weights where 224 fit."""
    dims, profile = ALEXNET[2].dims, load_profile("eyeriss-v1")
    assert not RowStationary(64, 4, 13, 16, 5, 1, 4).fits(dims, profile)
    assert not RowStationary(80, 4, 13, 20, 4, 1, 4).fits(dims, profile)
