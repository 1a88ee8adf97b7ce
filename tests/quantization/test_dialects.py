"""A dialect names a container for every width it accepts."""

from __future__ import annotations

import pytest
from onnx import TensorProto

from hwc_onnx.errors import UsageError
from hwc_onnx.graph.packing import CONTAINER_BITS
from hwc_onnx.quantization.dialects import DIALECTS, get_dialect


@pytest.mark.parametrize("name", DIALECTS)
def test_dialect_containers_hold_their_widths(name: str) -> None:
    dialect = get_dialect(name)
    assert dialect.name == name and dialect.weight_bits == tuple(range(2, 9))
    for table in (dialect.weight_types, dialect.fallback_types):
        assert all(CONTAINER_BITS[data_type] >= bits and opset >= 13 for bits, (data_type, opset) in table.items())


def test_ort_dialect_packs_two_to_four_bits() -> None:
    types = {bits: data_type for bits, (data_type, _) in get_dialect("ort").weight_types.items()}
    assert [bits for bits, data_type in types.items() if data_type == TensorProto.INT4] == [2, 3, 4]


def test_get_dialect_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown dialect 'orz' \(did you mean 'ort'"):
        get_dialect("orz")
