"""Metrics of a user's own that go wrong: `--metric tests.cli.bad_metrics:nans`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.generic]]
KNOWN = 0.95
"""Share of right answers below which `picky` fails: the original and INT8 are above it, compressed models are not."""


def right(outputs: Arrays, labels: NDArray[np.generic]) -> NDArray[np.float64]:
    """1 for each right answer."""
    return (np.argmax(next(iter(outputs.values())), axis=1) == labels).astype(np.float64)


def nans(outputs: Arrays, labels: NDArray[np.generic]) -> NDArray[np.float64]:
    """NaN for every fiftieth sample."""
    found = right(outputs, labels)
    found[::50] = np.nan
    return found


def raises(outputs: Arrays, labels: NDArray[np.generic]) -> NDArray[np.float64]:
    """Never returns."""
    raise KeyError("no such column")


def short(outputs: Arrays, labels: NDArray[np.generic]) -> NDArray[np.float64]:
    """One number too few."""
    return right(outputs, labels)[1:]


def picky(outputs: Arrays, labels: NDArray[np.generic]) -> NDArray[np.float64]:
    """Fails on models that answer other than well."""
    found = right(outputs, labels)
    if found.mean() < KNOWN:
        raise ValueError("too few right answers")
    return found


def gaps(outputs: Arrays, labels: NDArray[np.generic]) -> NDArray[np.float64]:
    """As `picky`, with NaN in place of an error."""
    found = right(outputs, labels)
    return found if found.mean() >= KNOWN else np.full_like(found, np.nan)
