"""Single layers without a graph: the best mapping of a shape, and the cost of a mapping that is stated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict, Unpack

from hwc_onnx.cost.accelerator import AcceleratorProfile
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
        pattern: (N, M) where the zeros of the weights follow an N:M pattern.
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
    pattern: tuple[int, int] | None = None
    weighted: bool = True
    channel_constants: bool = True
    input_stays: bool = False
    output_stays: bool = False

    def __post_init__(self) -> None:
        for name in ("activation_bits", "weight_bits", "output_bits"):
            bits = getattr(self, name)
            if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= MOST_BITS):
                raise MappingError(f"options, {name}: found {bits!r}, expected a whole number from 1 to {MOST_BITS}")
        for name in ("activation_density", "weight_density", "output_density"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise MappingError(f"options, {name}: found {getattr(self, name)!r}, expected a share from 0 to 1")
        if self.pattern is not None and not 1 <= self.pattern[0] <= self.pattern[1]:
            raise MappingError(f"options, pattern: found {self.pattern!r}, expected (N, M) with 1 <= N <= M")

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


class LayerFields(TypedDict, total=False):
    """The fields of `LayerOptions`, as keywords."""

    activation_bits: int
    weight_bits: int
    output_bits: int | None
    activation_density: float
    weight_density: float
    output_density: float
    pattern: tuple[int, int] | None
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
        MappingError: nothing fits the accelerator's memories.
        ProfileError: the accelerator is not known or wrong.
        ModelError: `loop_dims` has an open size.
    """
    return mapped_on(_energies(profile, cache_dir), loop_dims, replace(options or LayerOptions(), **fields))


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
    options = replace(options or LayerOptions(), **fields)
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
