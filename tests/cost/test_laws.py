import itertools

import pytest

from hwc_onnx.cost.accelerator import Mac
from hwc_onnx.cost.laws import mac_energy, mac_lanes, stored_bits
from hwc_onnx.cost.profile import list_profiles, load_profile

WIDTHS = range(2, 17)
LAWS = ("fixed", "gated_bits", "composable", "subword", "serial_weights", "serial_activations", "serial_both")


STATIC = 0.3

SYNTHESISED = {2: 353_400, 4: 744_400, 8: 1_885_200, 16: 5_733_700}
"""nW that a 4 x 4 array of fixed units of each width draws at 500 MHz, 45 nm (Bit Fusion's artefact)."""

COMPOSABLE = 4_622_800
"""nW of the same array of units for 2..8 bits."""


def unit(law, min_bits=2, **more):
    static = {"static_share": STATIC} if law == "gated_bits" else {}
    return Mac(law=law, bits=8, min_bits=min_bits, energy_pj=1.0, accumulator_bits=24, **static, **more)


def picojoules(nanowatts):
    """Energy of one of 16 units in one cycle at 500 MHz."""
    return nanowatts * 1e-9 / 16 / 500e6 * 1e12


def by_hand(law, a, w):
    """(energy, lanes) of an 8-bit unit at widths 2..8, from what the papers' circuits do, case by case."""
    brick = {2: 2, 3: 4, 4: 4, 5: 8, 6: 8, 7: 8, 8: 8}
    bricks = {(2, 2): 1, (2, 4): 2, (2, 8): 4, (4, 4): 4, (4, 8): 8, (8, 8): 16}[tuple(sorted((brick[a], brick[w])))]
    together = {2: 4, 4: 2, 8: 1}[brick[max(a, w)]]
    return {
        "fixed": (1.0, 1.0),
        "gated_bits": (STATIC + (1 - STATIC) * max(a, w) ** 1.34 / 8**1.34, 1.0),
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


@pytest.mark.parametrize("bits", SYNTHESISED)
def test_gated_bits_without_static_share_follow_the_synthesised_units(bits):
    """A unit of 16 bits with its low bits tied to zero is at best a unit of fewer bits."""
    mac = Mac(law="gated_bits", bits=16, min_bits=2, energy_pj=1.0, accumulator_bits=40, static_share=0.0)
    assert mac_energy(mac, bits, bits) == pytest.approx(SYNTHESISED[bits] / SYNTHESISED[16], rel=0.25)


def test_energy_quadratic_in_bits_disagrees_with_the_synthesised_units():
    """The broken twin: the product alone, without the registers and the sum that every unit has."""
    assert (2 / 16) ** 2 != pytest.approx(SYNTHESISED[2] / SYNTHESISED[16], rel=0.5)


def test_static_share_is_what_no_narrow_operand_saves():
    for share in (0.0, 0.3, 1.0):
        mac = Mac(law="gated_bits", bits=8, min_bits=1, energy_pj=2.0, accumulator_bits=24, static_share=share)
        assert mac_energy(mac, 8, 8) == pytest.approx(2.0)
        assert mac_energy(mac, 1, 1) >= 2.0 * share
        assert mac_energy(mac, 2, 6) == mac_energy(mac, 6, 2) == mac_energy(mac, 6, 6)


def test_composable_macs_share_the_synthesised_unit_of_eight_bits():
    """One PE-cycle is 1, 4 or 16 MACs at 8, 4 or 2 bits; the unit of the profile is the artefact's."""
    mac = load_profile("bitfusion-32x16").mac
    for bits, together in ((8, 1), (4, 4), (2, 16)):
        assert mac_lanes(mac, bits, bits) == together
        assert mac_energy(mac, bits, bits) * together == pytest.approx(picojoules(COMPOSABLE), rel=1e-3)


def test_composing_costs_two_and_a_half_times_a_fixed_unit():
    flexible, fixed = (load_profile(name).mac.energy_pj for name in ("edge-flex", "edge-flex-fixed8"))
    assert flexible / fixed == pytest.approx(COMPOSABLE / SYNTHESISED[8], rel=0.01)
    assert flexible / fixed != pytest.approx(1.0, rel=0.5), "the broken twin: composing for nothing"


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


@pytest.mark.parametrize("name", list_profiles())
def test_shipped_multiplier_saves_nothing_below_what_it_supports(name):
    mac = load_profile(name).mac
    for a, w in itertools.product(range(1, mac.min_bits + 1), WIDTHS):
        assert mac_energy(mac, a, w) == mac_energy(mac, mac.min_bits, w)
        assert mac_energy(mac, w, a) == mac_energy(mac, w, mac.min_bits)
    narrow = (mac_energy(mac, 2, 2), mac_lanes(mac, 2, 2))
    if mac.law == "fixed":
        assert narrow == (mac_energy(mac, 8, 8), mac_lanes(mac, 8, 8))


def test_shipped_multipliers_take_wide_operands_at_the_published_rate():
    rates = {
        ("nvdla-large", 16, 16): 1 / 2,  # each INT16 multiplier splits into two for INT8
        ("ethos-u55-256", 16, 8): 1 / 2,  # 16-bit activations with 8-bit weights
        ("bitfusion-32x16", 16, 16): 1 / 4,  # four passes
        ("unpu-bitserial", 16, 1): 16.0,  # as many weights of one bit in the cycles of one of 16
        ("eyeriss-v1", 16, 16): 1.0,
    }
    for (name, a, w), rate in rates.items():
        assert mac_lanes(load_profile(name).mac, a, w) == pytest.approx(rate)
