"""Packed integers are the bytes ONNX prescribes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from hwc_onnx.graph.packing import codes_fit, integer_tensor, integer_values, pack_int4


@given(st.lists(st.integers(-8, 7), max_size=33))
def test_pack_int4_equals_onnx_own_packing(codes: list[int]) -> None:
    array = np.array(codes, np.int8)
    tensor = integer_tensor("w", array, TensorProto.INT4)
    assert len(tensor.raw_data) == (len(codes) + 1) // 2
    np.testing.assert_array_equal(integer_values(tensor), array)
    own = onnx.helper.make_tensor("w", TensorProto.INT4, [len(codes)], codes)
    np.testing.assert_array_equal(integer_values(own), array)


def test_pack_int4_low_nibble_comes_first() -> None:
    assert pack_int4(np.array([1, -2, 7], np.int8)) == bytes([0xE1, 0x07])


@pytest.mark.parametrize(
    ("data_type", "codes"),
    [(TensorProto.INT4, [8]), (TensorProto.INT4, [-9]), (TensorProto.INT8, [128]), (TensorProto.FLOAT, [1])],
)
def test_integer_tensor_codes_or_type_that_do_not_fit_are_refused(data_type: int, codes: list[int]) -> None:
    with pytest.raises(ValueError, match="w:"):
        integer_tensor("w", np.array(codes, np.int32), data_type)


@given(st.integers(2, 8), st.lists(st.integers(-128, 127), min_size=1, max_size=12))
def test_codes_fit_is_the_twos_complement_range(bits: int, codes: list[int]) -> None:
    inside = all(-(2 ** (bits - 1)) <= code < 2 ** (bits - 1) for code in codes)
    assert codes_fit(np.array(codes), bits, None) == inside


def test_codes_fit_two_bits_allows_one_sign_per_channel_but_not_both() -> None:
    assert codes_fit(np.array([[-2, 1], [2, -1]]), 2, 0)
    assert not codes_fit(np.array([[-2, 2], [0, 0]]), 2, 0)
    assert not codes_fit(np.array([[-2, 1], [2, -1]]), 2, 1)
