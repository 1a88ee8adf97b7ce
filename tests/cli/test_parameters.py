"""Values as people write them."""

from __future__ import annotations

import click
import pytest

from hwc_onnx.cli.parameters import (
    BitRange,
    ByteSize,
    Drop,
    Duration,
    InputShape,
    Latency,
    MinChannels,
    RatioBounds,
    Share,
    names,
)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Duration, "90", 90.0),
        (Duration, "90s", 90.0),
        (Duration, "1.5m", 90.0),
        (Duration, "2h", 7200.0),
        (Latency, "5ms", 0.005),
        (Latency, "250 us", 0.00025),
        (ByteSize, "500KB", 500_000),
        (ByteSize, "1MiB", 1_048_576),
        (ByteSize, "2e3", 2000),
        (Share, "40%", 0.4),
        (Share, "0.4", 0.4),
        (Drop, "1.0", 1.0),
        (Drop, "0", 0.0),
        (Drop, "1.5%", "1.5%"),
        (BitRange, "2-8", (2, 8)),
        (BitRange, "8", (8, 8)),
        (InputShape, "x:1x3x224x224", ("x", (1, 3, 224, 224))),
        (InputShape, "scope:x:0:1x3", ("scope:x:0", (1, 3))),
        (MinChannels, "16", ("*", 16)),
        (MinChannels, "re:(a|b=c).*=16", ("re:(a|b=c).*", 16)),
        (RatioBounds, "0-0.5", ("*", (0.0, 0.5))),
        (RatioBounds, "Conv = 0.2 - 0.5", ("Conv", (0.2, 0.5))),
        (names("fine", "coarse"), "coarse, fine", ("coarse", "fine")),
        (names(), "l1", ("l1",)),
    ],
)
def test_value_becomes_a_number(kind: click.ParamType, text: str, value: object) -> None:
    expected = pytest.approx(value) if isinstance(value, float) else value
    assert kind.convert(text, None, None) == expected


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Duration, "-3s"),
        (Duration, ""),
        (Latency, "5min"),
        (ByteSize, "5ms"),
        (MinChannels, "a=b"),
        (MinChannels, "=4"),
        (RatioBounds, "0.5"),
        (RatioBounds, "Conv=0.5"),
        (Share, "0%"),
        (Share, "101%"),
        (Share, "1.5"),
        (Drop, "1 %%"),
        (Drop, "nan"),
        (BitRange, "2-16"),
        (BitRange, "4-"),
        (InputShape, "1x3"),
        (names("fine"), ""),
    ],
)
def test_wrong_value_is_refused_with_an_example(kind: click.ParamType, text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"such as|choose from"):
        kind.convert(text, None, None)
