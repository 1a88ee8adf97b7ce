"""Single layers without a graph: the best mapping of a shape, and the cost of a mapping that is stated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from functools import lru_cache
from numbers import Real
from pathlib import Path
from typing import Any, TypedDict, Unpack

from hwc_onnx.cost.accelerator import AcceleratorProfile
from hwc_onnx.cost.cache import check_size
from hwc_onnx.cost.laws import stored_bits
from hwc_onnx.cost.layer_cost import mapped_cost
from hwc_onnx.cost.layer_mapping import LayerMapping, stated_table
from hwc_onnx.cost.ledger import Ledger
from hwc_onnx.cost.mapping import MappingTable
from hwc_onnx.cost.operands import Nest
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.cost.setting import FREE_STEPS, LayerSetting, Place
from hwc_onnx.cost.steps import StepEnergies
from hwc_onnx.cost.terms import Mapped
from hwc_onnx.cost.types import NodeCost
from hwc_onnx.errors import MappingError
from hwc_onnx.graph.loop_dims import LoopDims
from hwc_onnx.graph.zero_pattern import Blocks, Pattern
from hwc_onnx.plugins import nearest

NAME = "layer"
MOST_BITS = 64


@dataclass(frozen=True)
class LayerOptions:
    """The setting of a single layer.

    Attributes:
        activation_bits: width of the input.
        weight_bits: width of the weights, or of the second operand.
        output_bits: width at which the result is stored; None: as the input.
        activation_density: share of inputs that differ from their zero point.
        weight_density: the same of the weights.
        output_density: the same of the stored result.
        pattern: (N, M) where the zeros of the weights follow an N:M pattern, or `Blocks`.
        weighted: False for a product of two activations.
        channel_constants: whether each output channel has a bias and a scale to fetch.
        input_stays: the input is in the home memory already; otherwise it comes from DRAM.
        output_stays: the result stays there; otherwise it goes to DRAM.
    """

    activation_bits: int = 8
    weight_bits: int = 8
    output_bits: int | None = None
    activation_density: float = 1.0
    weight_density: float = 1.0
    output_density: float = 1.0
    pattern: Pattern | None = None
    weighted: bool = True
    channel_constants: bool = True
    input_stays: bool = False
    output_stays: bool = False

    def __post_init__(self) -> None:
        for name in ("activation_bits", "weight_bits", "output_bits"):
            bits = getattr(self, name)
            if bits is not None or name != "output_bits":
                object.__setattr__(self, name, checked_bits(bits, name))
        for name in ("activation_density", "weight_density", "output_density"):
            object.__setattr__(self, name, checked_share(getattr(self, name), name))
        object.__setattr__(self, "pattern", checked_pattern(self.pattern))
        for name in ("weighted", "channel_constants", "input_stays", "output_stays"):
            if getattr(self, name) not in (True, False):
                raise MappingError(f"options, {name}: found {getattr(self, name)!r}, expected True or False")

    def setting(self, dims: LoopDims) -> LayerSetting:
        """The record that the energy depends on."""
        return LayerSetting(
            dims, self.weighted, self.activation_bits, self.weight_bits, self.activation_density, self.weight_density,
            self.pattern, Nest(dims).words("O"), self.output_bits or self.activation_bits, self.output_density,
            dims.K * dims.G if self.weighted and self.channel_constants else 0,
        )  # fmt: skip

    def place(self, dims: LoopDims, profile: AcceleratorProfile) -> Place:
        """Where its tensors are.

        Raises:
            MappingError: a tensor is to stay where the accelerator has no memory for it, or not enough.
        """
        home, taken = profile.home, 0
        for operand, stays, bits in (
            ("I", self.input_stays, self.activation_bits), ("O", self.output_stays, self.output_bits or self.activation_bits)
        ):  # fmt: skip
            if stays and home is None:
                raise MappingError(f"options: '{profile.name}' has no home memory where a tensor could stay; let it travel")
            if stays and home is not None:
                taken += Nest(dims).words("I" if operand == "I" else "O") * stored_bits(bits, home.pack)
        if home is not None and home.bytes is not None and taken > home.bytes * 8:
            raise MappingError(
                f"options: the tensors that are to stay take {-(-taken // 8)} bytes, {home.name} has {home.bytes}; let one travel"
            )
        free = FREE_STEPS if home is None or home.bytes is None else FREE_STEPS - -(-taken * FREE_STEPS // (home.bytes * 8))
        return Place(self.input_stays, False, self.output_stays, free)


def checked_bits(bits: object, name: str) -> int:
    """A width as an `int` (MappingError if it is none)."""
    whole = None if isinstance(bits, bool) or not hasattr(bits, "__index__") else int(bits.__index__())
    if whole is None or not 1 <= whole <= MOST_BITS:
        raise MappingError(f"options, {name}: found {bits!r}, expected a whole number from 1 to {MOST_BITS}")
    return whole


def checked_share(share: object, name: str, *, below: bool = False) -> float:
    """A share as a `float`, with `below` less than 1 (MappingError if it is none)."""
    number = float(share) if isinstance(share, Real) and not isinstance(share, bool) else -1.0
    if not 0.0 <= number <= 1.0 or (below and number == 1.0):
        raise MappingError(
            f"options, {name}: found {share!r}, expected a share from 0 to {'less than 1' if below else '1'}"
        )
    return number


def checked_pattern(pattern: object) -> Pattern | None:
    """An N:M pattern as two `int`s, blocks, or None (MappingError if it is none of these)."""
    if pattern is None:
        return None
    if isinstance(pattern, Blocks):
        share, size = checked_share(pattern.share, "pattern, share"), pattern.size
        if type(size) is not int or size < 1:
            raise MappingError(f"options, pattern: found blocks of {size!r}, expected a whole number of weights, for example 4")
        return Blocks(share, size)
    pair = tuple(pattern) if isinstance(pattern, Sequence) and not isinstance(pattern, str) else ()
    whole = [int(n.__index__()) for n in pair if hasattr(n, "__index__") and not isinstance(n, bool)]
    if len(pair) != 2 or len(whole) != 2 or not 1 <= whole[0] <= whole[1]:
        raise MappingError(
            f"options, pattern: found {pattern!r}, expected (N, M) with 1 <= N <= M, for example (2, 4), or None"
        )
    return whole[0], whole[1]


def options_of(options: object, changed: Mapping[str, object]) -> LayerOptions:
    """The options with single fields changed.

    Raises:
        MappingError: these are no options, or there is no such field.
    """
    if options is not None and not isinstance(options, LayerOptions):
        raise MappingError(
            f"options: found {type(options).__name__}, expected LayerOptions, or its fields as keywords, such as weight_bits=4"
        )
    known = [field.name for field in dataclass_fields(LayerOptions)]
    for name in changed:
        if name not in known:
            raise MappingError(f"options: no field '{name}'{nearest(name, known)}; choose from {', '.join(known)}")
    return replace(options or LayerOptions(), **changed)  # type: ignore[arg-type]


def checked_dims(dims: object) -> LoopDims:
    """The layer (MappingError if it is none)."""
    if not isinstance(dims, LoopDims):
        raise MappingError(f"layer: found {type(dims).__name__}, expected LoopDims, for example LoopDims(K=64, C=64, OY=8)")
    return dims


class LayerFields(TypedDict, total=False):
    """The fields of `LayerOptions`, as keywords."""

    activation_bits: int
    weight_bits: int
    output_bits: int | None
    activation_density: float
    weight_density: float
    output_density: float
    pattern: Pattern | None
    weighted: bool
    channel_constants: bool
    input_stays: bool
    output_stays: bool


def map_layer(
    loop_dims: LoopDims,
    profile: str | Path | AcceleratorProfile,
    options: LayerOptions | None = None,
    *,
    cache_dir: str | Path | None = None,
    **fields: Unpack[LayerFields],
) -> NodeCost:
    """The cost of one layer on its best mapping.

    Args:
        loop_dims: the layer.
        profile: accelerator by name, file, or as loaded.
        options: widths, densities, where the tensors are; 8 bits, dense and in DRAM if left out.
        cache_dir: where searched mappings are kept.
        fields: single fields of the options, for example `weight_bits=4`.

    Returns:
        Energy by component with its terms, accesses by memory, operand and direction in words, cycles, and the mapping
        (`LayerMapping.from_json(cost.mapping)` states it again).

    Raises:
        MappingError: nothing fits the accelerator's memories, or an argument is not what it should be.
        ProfileError: the accelerator is not known or wrong.
        ModelError: a dimension is too large to be searched.
    """
    return mapped_on(_energies(profile, cache_dir), checked_dims(loop_dims), options_of(options, fields))


def mapped_on(energies: StepEnergies, loop_dims: LoopDims, options: LayerOptions) -> NodeCost:
    """`map_layer` with the mappings that `energies` remembers."""
    setting, place = options.setting(loop_dims), options.place(loop_dims, energies.profile)
    best = energies.best(setting, place)
    if best.row < 0:
        raise MappingError(f"no mapping of {loop_dims} fits the memories of '{energies.profile.name}'; enlarge them")
    return _cost(energies, energies.tables.table(loop_dims), best.row, setting, place)


def evaluate_mapping(
    loop_dims: LoopDims,
    mapping: LayerMapping | Mapping[str, Any],
    profile: str | Path | AcceleratorProfile,
    options: LayerOptions | None = None,
    **fields: Unpack[LayerFields],
) -> NodeCost:
    """The cost of one layer on a stated mapping; placements that are left open are chosen for the least energy.

    `mapping` may be that of a node in `profile --json`; the other arguments are those of `map_layer`.

    Raises:
        MappingError: the mapping does not cover the layer, names what does not exist, or holds what does not fit.
    """
    options = options_of(options, fields)
    check_size(checked_dims(loop_dims))
    energies = _energies(profile, None)
    setting, place = options.setting(loop_dims), options.place(loop_dims, energies.profile)
    if not isinstance(mapping, LayerMapping):
        mapping = LayerMapping.from_json(mapping)
    table = stated_table(
        mapping, Nest(loop_dims), energies.hierarchy, (options.activation_bits, options.weight_bits)
    )  # fmt: skip
    best = energies.query.best(table, setting, place)
    if best is None:
        raise MappingError(
            f"mapping: its tiles do not fit the memories of '{energies.profile.name}' together at these widths; "
            "hold something for fewer loops"
        )
    return _cost(energies, table, best.row, setting, place)


def _cost(energies: StepEnergies, table: MappingTable, row: int, setting: LayerSetting, place: Place) -> NodeCost:
    layer = Mapped(energies.query, energies.query.reduced(table, setting), row, setting, place)
    return mapped_cost(layer, Ledger(energies), NAME, "", None)


def _energies(profile: str | Path | AcceleratorProfile, cache_dir: str | Path | None) -> StepEnergies:
    if not isinstance(profile, AcceleratorProfile):
        profile = load_profile(profile)
    return _remembered(_Key(profile.digest(), profile), None if cache_dir is None else Path(cache_dir))


class _Key:
    """A profile that is equal to another of the same content."""

    def __init__(self, digest: str, profile: AcceleratorProfile) -> None:
        self.digest, self.profile = digest, profile

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other.digest == self.digest


@lru_cache(maxsize=16)
def _remembered(key: _Key, cache_dir: Path | None) -> StepEnergies:
    """Energies of a profile, so that calls for many layers share what was searched."""
    return StepEnergies(key.profile, cache_dir)
