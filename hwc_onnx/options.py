"""Everything that `compress` can be told, checked once, and the part of it that makes two runs the same run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from hwc_onnx.errors import UsageError
from hwc_onnx.graph.constraints import Constraints, by_pattern, constraints_of
from hwc_onnx.limits import Limits
from hwc_onnx.pruning.table import COARSE, FINE, ON_REQUEST, granularity
from hwc_onnx.quantization.dialects import get_dialect

_LISTS = frozenset({"algorithms", "granularity", "include", "exclude", "compare_accelerators"})


@dataclass(frozen=True)
class Options:
    """Arguments of `hwc_onnx.compress`, see there. `max_drop` is points, or a share as text such as "1%"; None is 1.0 where energy
    is minimised, and any drop where the drop is. `max_memory` is bytes of weights and activations on the accelerator. `from_run` is
    the folder of an earlier run whose trials are judged in place of a search.

    `min_channels` is a count for every layer, or counts by pattern; `ratio_bounds` a (lowest, highest) ratio, or such by pattern.
    """

    data: Any = None
    accelerator: str | Path = "edge-flex"
    objective: str = "energy"
    max_drop: float | str | None = None
    max_energy: float | None = None
    max_latency: float | None = None
    max_bytes: int | None = None
    max_memory: int | None = None
    from_run: str | Path | None = None
    metric: Any = None
    task: str | None = None
    preset: str | None = None
    sampler: str = "composite"
    policy: str | Path | None = None
    trials: int = 200
    timeout: float | None = None
    seed: int = 0
    split_seed: int = 0
    jobs: int = 1
    gate: str | None = None
    weight_bits: tuple[int, int] = (2, 8)
    activation_bits: tuple[int, int] = (4, 8)
    algorithms: tuple[str, ...] | None = None
    granularity: tuple[str, ...] = ("fine", "coarse")
    lanes: int = 1
    min_channels: Any = None
    ratio_bounds: Any = None
    keep_heads: bool = False
    dialect: str = "ort"
    portable: bool = False
    polish: bool = False
    first_last: str = "keep"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    input_shapes: Mapping[str, Sequence[int]] | None = None
    calibration_samples: int | None = None
    search_samples: int | None = None
    compare_accelerators: tuple[str | Path, ...] = ()

    def __post_init__(self) -> None:
        """Take one name as a list of one and numpy's numbers as plain ones; refuse what contradicts itself (UsageError)."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str) and field.name in _LISTS:
                object.__setattr__(self, field.name, (value,))
            elif isinstance(value, np.generic):
                object.__setattr__(self, field.name, value.item())
        if self.objective not in ("energy", "drop"):
            raise UsageError(f"objective: '{self.objective}'; choose energy or drop")
        if self.objective == "drop" and self.max_energy is None:
            raise UsageError("objective: the least drop is looked for at an energy target; give one, such as --max-energy 40%")
        if self.objective == "energy" and self.max_drop is None:
            object.__setattr__(self, "max_drop", 1.0)
        for name, value in self.limits.given().items():
            if not value > 0.0:
                raise UsageError(f"{name}: a limit of {value:g}; give one above zero")
        for name, low, high in (("weight_bits", 2, 8), ("activation_bits", 2, 8)):
            first, last = getattr(self, name)
            if not low <= first <= last <= high:
                raise UsageError(f"{name}: {first}-{last}; give a range within {low}-{high}, the smaller one first")
        if self.jobs != 1:
            raise UsageError(
                f"jobs: {self.jobs}; one search runs in one process, start several seeds side by side instead"
            )
        if self.trials < 1:
            raise UsageError(f"trials: {self.trials}; at least 1 candidate has to be evaluated")
        if self.lanes < 1:
            raise UsageError(f"lanes: {self.lanes}; keep channels in multiples of 1 or more")
        if self.gate not in (None, "upper", "point"):
            raise UsageError(f"gate: '{self.gate}'; choose upper or point")
        if self.first_last not in ("keep", "free"):
            raise UsageError(f"first_last: '{self.first_last}'; choose keep or free")
        wrong = set(self.granularity) - {"fine", "coarse"}
        if wrong:
            raise UsageError(f"granularity: {', '.join(sorted(wrong))}; choose from fine, coarse")
        for name in self.algorithms or ():
            kind = granularity(name)
            if kind != "none" and kind not in self.granularity:
                raise UsageError(
                    f"algorithms: {name} is {kind}-grained, but granularity allows only {', '.join(self.granularity)}"
                )
        written = get_dialect(self.dialect).activation_bits
        low, high = self.activation_bits
        common = [bits for bits in written if low <= bits <= high]
        if not common:
            raise UsageError(
                f"activation_bits: {low}-{high}; dialect {self.dialect} writes {written[0]}"
                + (f"-{written[-1]}" if len(written) > 1 else "")
                + " bits; give a range that holds that, or another dialect"
            )
        object.__setattr__(self, "activation_bits", (common[0], common[-1]))
        object.__setattr__(self, "min_channels", by_pattern(self.min_channels))
        object.__setattr__(self, "ratio_bounds", by_pattern(self.ratio_bounds))
        assert self.constraints is not None
        assert self.drop_limit[0] >= 0

    @property
    def drop_limit(self) -> tuple[float, bool]:
        """The limit (infinite where there is none) and whether it is a share of the original's value.

        Raises:
            UsageError: it cannot be read.
        """
        if self.max_drop is None:
            return math.inf, False
        text = str(self.max_drop).strip()
        relative = text.endswith("%")
        try:
            value = float(text.removesuffix("%"))
        except ValueError as error:
            raise UsageError(f"max_drop: '{self.max_drop}'; give points such as 1.0, or a share such as 1%") from error
        if not 0 <= value < 1e6:
            raise UsageError(f"max_drop: {self.max_drop}; give a limit of zero or more")
        return (value / 100, True) if relative else (value, False)

    @property
    def limits(self) -> Limits:
        """The limits beside accuracy."""
        return Limits(self.max_energy, self.max_latency, self.max_bytes, self.max_memory)

    @property
    def energy_target(self) -> float | None:
        """The energy at which the least drop is looked for; None where the least energy is."""
        return self.max_energy if self.objective == "drop" else None

    @property
    def constraints(self) -> Constraints:
        """What may not be removed (UsageError where it cannot be read)."""
        return constraints_of(self.min_channels, self.ratio_bounds, self.keep_heads)

    @property
    def pruning(self) -> tuple[str, ...]:
        """Names of the pruning algorithms that the search may use."""
        usual = [name for name in (*FINE, *COARSE) if name not in ON_REQUEST]
        known = usual if self.algorithms is None else self.algorithms
        return tuple(name for name in known if name != "none" and granularity(name) in self.granularity)

    def config(self, model_digest: str, data_digest: str, accelerator_digest: str) -> dict[str, Any]:
        """Plain values that a continued run must share; files are represented by digests."""
        left_out = {"data", "accelerator", "metric", "compare_accelerators", "policy", "from_run"}
        if self.objective == "energy":
            left_out.add("objective")
        if not self.constraints:
            left_out |= {"min_channels", "ratio_bounds", "keep_heads"}
        plain = {field.name: _plain(getattr(self, field.name)) for field in fields(self) if field.name not in left_out}
        return plain | {
            "model_sha256": model_digest,
            "data_sha256": data_digest,
            "accelerator_sha256": accelerator_digest,
            "metric": _name(self.metric),
        }


def _name(metric: Any) -> str | None:
    """A metric by a name that is the same in the next process, which its address is not."""
    if metric is None or isinstance(metric, str):
        return metric
    name = getattr(metric, "__qualname__", None) or getattr(metric, "name", None) or type(metric).__qualname__
    return f"{getattr(metric, '__module__', '')}:{name}"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value
