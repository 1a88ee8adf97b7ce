import itertools

import pytest

from hwc_onnx.cost.accelerator import Mac
from hwc_onnx.cost.laws import mac_energy, mac_lanes, stored_bits

WIDTHS = range(2, 17)
LAWS = ("fixed", "composable", "subword", "serial_weights", "serial_activations", "serial_both")


def unit(law, min_bits=2, **more):
    return Mac(law=law, bits=8, min_bits=min_bits, energy_pj=1.0, accumulator_bits=24, **more)


def by_hand(law, a, w):
    """(energy, lanes) of an 8-bit unit at widths 2..8, from what the papers' circuits do, case by case."""
    brick = {2: 2, 3: 4, 4: 4, 5: 8, 6: 8, 7: 8, 8: 8}
    bricks = {(2, 2): 1, (2, 4): 2, (2, 8): 4, (4, 4): 4, (4, 8): 8, (8, 8): 16}[tuple(sorted((brick[a], brick[w])))]
    together = {2: 4, 4: 2, 8: 1}[brick[max(a, w)]]
    return {
        "fixed": (1.0, 1.0),
        "composable": (bricks / 16, 16 / bricks),
        "subword": (1 / together, float(together)),
        "serial_weights": (w / 8, 8 / w),
        "serial_activations": (a / 8, 8 / a),
        "serial_both": (a * w / 64, 64 / (a * w)),
    }[law]


@pytest.mark.parametrize("law", LAWS)
def test_energy_and_lanes_of_every_width_pair_equal_the_circuit(law):
    for a, w in itertools.product(range(2, 9), repeat=2):
        assert (mac_energy(unit(law), a, w), mac_lanes(unit(law), a, w)) == pytest.approx(by_hand(law, a, w))


def test_energy_linear_in_bits_disagrees_with_the_circuit():
    """The broken twin: 3 bits at 3/8 of the energy on a unit of 2-bit bricks, which takes two bricks a side."""
    assert by_hand("composable", 3, 8)[0] == 0.5
    assert by_hand("composable", 3, 8)[0] != 3 / 8


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("min_bits", [2, 4, 8])
def test_bits_below_what_the_unit_supports_never_save_energy_or_time(law, min_bits):
    mac = unit(law, min_bits)
    for a, w in itertools.product(range(2, min_bits + 1), WIDTHS):
        assert mac_energy(mac, a, w) == mac_energy(mac, min_bits, w)
        assert mac_energy(mac, w, a) == mac_energy(mac, w, min_bits)
        assert mac_lanes(mac, a, w) == mac_lanes(mac, min_bits, w)


@pytest.mark.parametrize("wide", [None, {"passes": 4.0, "energy_factor": 3.5}])
@pytest.mark.parametrize("law", LAWS)
def test_energy_never_falls_and_lanes_never_rise_with_bits(law, wide):
    mac = unit(law, wide=wide)
    for a, w in itertools.product(WIDTHS, WIDTHS):
        if a < 16:
            assert mac_energy(mac, a, w) <= mac_energy(mac, a + 1, w)
            assert mac_lanes(mac, a, w) >= mac_lanes(mac, a + 1, w)
        if w < 16:
            assert mac_energy(mac, a, w) <= mac_energy(mac, a, w + 1)
            assert mac_lanes(mac, a, w) >= mac_lanes(mac, a, w + 1)


def test_a_fixed_unit_saves_nothing_and_a_composable_one_does():
    """What would be missed if every unit were charged by bits."""
    assert mac_energy(unit("fixed", 8), 2, 2) == mac_energy(unit("fixed", 8), 8, 8)
    assert mac_energy(unit("composable"), 2, 2) < mac_energy(unit("composable"), 8, 8)


def test_wider_operands_take_the_stated_passes_or_four_times_the_energy():
    assert mac_energy(unit("fixed"), 16, 16) == 4.0
    assert mac_lanes(unit("fixed"), 16, 16) == 0.25
    assert mac_energy(unit("fixed"), 16, 8) == 2.0
    stated = unit("fixed", wide={"passes": 9.0, "energy_factor": 2.25})
    assert mac_energy(stated, 16, 16) == pytest.approx(2.25)
    assert mac_lanes(stated, 16, 8) == pytest.approx(1 / 3)


def test_subword_overhead_is_paid_only_when_the_unit_is_split():
    mac = unit("subword", overhead=0.2)
    assert mac_energy(mac, 8, 8) == 1.0
    assert mac_energy(mac, 4, 4) == pytest.approx(1.2 / 2)


def test_stored_bits_is_the_narrowest_granule_that_holds_the_word():
    assert [stored_bits(bits, (2, 4, 8, 16)) for bits in (2, 3, 4, 5, 8, 9, 16)] == [2, 4, 4, 8, 8, 16, 16]
    assert [stored_bits(bits, "exact") for bits in (2, 3, 5)] == [2, 3, 5]
    assert [stored_bits(bits, (8,)) for bits in (2, 8, 9, 24)] == [8, 8, 16, 24]
    assert all(stored_bits(bits, (8, 16)) >= bits for bits in WIDTHS)
