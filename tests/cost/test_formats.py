import itertools
import math

import numpy as np
import pytest

from hwc_onnx.cost.accelerator import Format
from hwc_onnx.cost.formats import element_bits
from hwc_onnx.graph.zero_pattern import Blocks

WORDS = 200_000
DENSITIES = (0.02, 0.1, 0.3, 0.6, 0.9, 1.0)
KINDS = {"bitmask": {}, "csc": {"run_bits": 4}, "rlc": {"run_bits": 5}}


def encode(zero, bits, kind, run_bits=4):
    """Bits that an encoder writes for a stream of zero / non-zero flags, word by word."""
    written, run = 0.0, 0
    if kind == "bitmask":
        return float(len(zero) + bits * np.count_nonzero(~zero))
    if kind == "csc":
        return float((bits + run_bits) * np.count_nonzero(~zero))
    longest = (1 << run_bits) - 1
    for is_zero in zero:
        if is_zero and run < longest:
            run += 1
        else:
            # a pair of run and word; a full run carries a zero as its word; a third of an end bit for each pair
            written += bits + run_bits + 1 / 3
            run = 0
    return written


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("density", DENSITIES)
def test_element_bits_equals_an_encoder_on_random_zeros(kind, density):
    zero = np.random.default_rng(0).random(WORDS) >= density
    storage = Format(kind=kind, selectable=False, **KINDS[kind])
    truth = encode(zero, 8, kind, **KINDS[kind]) / WORDS
    assert element_bits(8, density, storage) == pytest.approx(truth, rel=0.02)


def test_element_bits_without_metadata_disagrees_with_the_encoder():
    """The broken twin: counting only the non-zero words, 30 % of 8 bits, forgets more than a third of the stream."""
    zero = np.random.default_rng(0).random(WORDS) >= 0.3
    assert encode(zero, 8, "bitmask") / WORDS != pytest.approx(0.3 * 8, rel=0.2)


def test_bits_are_those_worked_out_by_hand():
    assert element_bits(8, 0.25, Format(kind="bitmask")) == 1 + 0.25 * 8
    assert element_bits(8, 0.25, Format(kind="csc", run_bits=4)) == 0.25 * 12
    assert element_bits(8, 0.5, Format(kind="nm"), (2, 4)) == 0.5 * (8 + 2)
    assert element_bits(4, 0.5, Format(kind="nm"), (4, 8)) == 0.5 * (4 + 3)
    assert element_bits(8, 0.5, None) == 8


def test_blocks_format_stores_whole_blocks_and_a_bit_for_each():
    stored = element_bits(8, 0.4, Format(kind="blocks"), Blocks(0.5, 4))
    assert stored == 0.5 * 8 + 1 / 4
    assert stored != element_bits(8, 0.5, Format(kind="bitmask"))
    assert element_bits(8, 0.5, Format(kind="blocks")) == element_bits(8, 0.5, Format(kind="blocks"), (2, 4)) == 8
    assert element_bits(8, 0.5, Format(kind="nm"), Blocks(0.5, 4)) == 8
    assert element_bits(8, 1.0, Format(kind="blocks"), Blocks(1.0, 4)) == 8


def test_nm_format_without_a_pattern_stores_all_words():
    assert element_bits(8, 0.1, Format(kind="nm")) == 8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_selectable_format_never_enlarges_and_never_rises_as_density_falls(kind, bits):
    chosen, forced = Format(kind=kind, **KINDS[kind]), Format(kind=kind, selectable=False, **KINDS[kind])
    rising = np.linspace(0, 1, 101)
    for storage in (chosen, forced):
        sizes = [element_bits(bits, float(d), storage) for d in rising]
        assert all(a <= b + 1e-12 for a, b in itertools.pairwise(sizes))
    assert all(element_bits(bits, float(d), chosen) <= bits for d in rising)
    assert element_bits(bits, 1.0, forced) > bits


def test_rlc_of_no_word_at_all_is_full_runs():
    """2^r zeros make one pair: the limit of the formula as the density falls to zero."""
    storage = Format(kind="rlc", run_bits=5, selectable=False)
    assert element_bits(16, 0.0, storage) == pytest.approx(element_bits(16, 1e-9, storage), rel=1e-6)
    assert math.isclose(element_bits(16, 0.0, storage), (16 + 5 + 1 / 3) / 32)
