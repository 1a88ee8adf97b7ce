"""ZigZag's own objects for a case, an architecture and a spatial mapping, and the energy of all loop orders over it.

Three defaults of its API are avoided by building the objects here. Ports are one word wide, so that an access is a
word; the API would then limit the unrolling by the port width, so its spatial mapping generator is left out. Reading
the same word again from the innermost memory counts. And only what energy needs is evaluated: the latency model is
skipped, tile sizes are remembered, and of the loop orders that leave the same loops in every memory one is evaluated.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from architectures import Architecture, Memory
from cases import DIMS, Case
from unrolling import Pair
from zigzag.cost_model.cost_model import CostModelEvaluation
from zigzag.datatypes import LayerDim, LayerOperand, OADimension
from zigzag.hardware.architecture.accelerator import Accelerator
from zigzag.mapping.data_movement import DataDirection
from zigzag.mapping.mapping import Mapping
from zigzag.mapping.spatial_mapping import MappingSingleOADim, SpatialMapping
from zigzag.mapping.spatial_mapping_internal import SpatialMappingInternal
from zigzag.mapping.temporal_mapping import TemporalMapping, TemporalMappingType
from zigzag.opt.loma.engine import LomaEngine
from zigzag.opt.loma.loop import Loop
from zigzag.opt.loma.memory_allocator import (
    MemoryAllocator,
    MemoryHierarchyTooSmallException,
    MemoryTooSmallException,
)
from zigzag.parser.accelerator_factory import AcceleratorFactory
from zigzag.parser.workload_factory import LayerNodeFactory
from zigzag.stages.evaluation.cost_model_evaluation import CostModelStage
from zigzag.stages.mapping.spatial_mapping_conversion import SpatialMappingConversionStage
from zigzag.workload.layer_node import LayerNode

OPERANDS = ("I", "W", "O")
MEMORY_OPERANDS = {"I": "I1", "W": "I2", "O": "O"}
ROWS, COLUMNS = OADimension("D1"), OADimension("D2")
UNLIMITED_BITS = 10**15
EQUATION = "O[b][g][k][oy][ox]+=W[g][k][c][fy][fx]*I[b][g][c][iy][ix]"


def accelerator(architecture: Architecture) -> Accelerator:
    """The architecture as ZigZag describes it."""
    data = {
        "name": architecture.name,
        "operational_array": {
            "is_imc": False,
            "unit_energy": architecture.mac_energy,
            "unit_area": 0,
            "dimensions": ["D1", "D2"],
            "sizes": [architecture.rows.size, architecture.columns.size],
            "systolic_dimensions": [],
        },
        "memories": {memory.name: _memory(memory, architecture.word_bits) for memory in architecture.memories},
    }
    return AcceleratorFactory(data).create()


def _memory(memory: Memory, word_bits: int) -> dict[str, Any]:
    operands = [MEMORY_OPERANDS[operand] for operand in memory.operands]
    directions = [f"{operand}, {way}" for operand in operands for way in ("fh", "tl")]
    directions += [f"O, {way}" for way in ("fl", "th")] if "O" in operands else []
    port = {"name": "rw_port_1", "type": "read_write", "bandwidth_min": word_bits, "bandwidth_max": word_bits}
    return {
        "size": UNLIMITED_BITS if memory.words is None else memory.words * word_bits,
        "r_cost": memory.energy,
        "w_cost": memory.energy,
        "area": 0,
        "latency": 1,
        "mem_type": "sram",
        "auto_cost_extraction": False,
        "force_double_buffering": False,
        "operands": operands,
        "ports": [{**port, "allocation": directions}],
        "served_dimensions": [] if memory.scope == "pe" else ["D1", "D2"],
    }


def layer_node(case: Case, word_bits: int) -> LayerNode:
    """The layer as ZigZag describes it; groups are a loop that all operands follow."""
    data = {
        "id": 0,
        "name": case.name,
        "operator_type": "Conv",
        "equation": EQUATION,
        "dimension_relations": [
            f"ix={case.stride[1]}*ox+{case.dilation[1]}*fx",
            f"iy={case.stride[0]}*oy+{case.dilation[0]}*fy",
        ],
        "loop_dims": list(DIMS),
        "loop_sizes": list(case.dims),
        "operand_precision": {"I": word_bits, "W": word_bits, "O": word_bits, "O_final": word_bits},
        "operand_source": {"W": 0, "I": 0},
    }
    mapping = [{"name": "default", "spatial_mapping": None, "memory_operand_links": MEMORY_OPERANDS}]
    return LayerNodeFactory(data, mapping).create()


class EnergyOnly(CostModelEvaluation):
    """ZigZag's evaluation of one mapping without its latency model (and the second mapping object which that needs)."""

    def __init__(
        self, hardware: Accelerator, layer: LayerNode, spatial: SpatialMappingInternal, temporal: TemporalMapping
    ):
        self.accelerator, self.layer = hardware, layer
        self.spatial_mapping, self.temporal_mapping = spatial, temporal
        self.memory_operand_links = layer.memory_operand_links
        self.mapping = Mapping(hardware, spatial, temporal, layer, access_same_data_considered_as_no_access=False)
        self.calc_memory_word_access()
        self.calc_energy()


class RememberingAllocator(MemoryAllocator):
    """ZigZag's placement of loops in memories, which asks for the size of the same tiles again and again."""

    def __init__(self, *arguments: Any, sizes: dict[tuple[Any, ...], float]):
        self.sizes = sizes
        super().__init__(*arguments)

    def calc_loops_size(self, loops: list[Loop], layer_op: LayerOperand, precision: int) -> float:
        """Bits of the tile that the loops span."""
        extents: dict[str, float] = {}
        for loop in loops:
            extents[loop.layer_dim.name] = extents.get(loop.layer_dim.name, 1) * loop.size
        key = (layer_op.name, precision, *sorted(extents.items()))
        if key not in self.sizes:
            self.sizes[key] = super().calc_loops_size(loops, layer_op, precision)
        return self.sizes[key]


@dataclass(frozen=True)
class Found:
    """The best mapping over one spatial mapping.

    `exact`: nothing in it is fractional. `rounding`: largest relative error in the units and tiles that ZigZag rounds.
    """

    energy: float
    unrolling: Pair
    spatial: SpatialMappingInternal
    spatial_int: SpatialMappingInternal
    temporal: TemporalMapping
    accesses: dict[str, list[dict[str, int]]]
    exact: bool
    rounding: float


class SpatialMappingRefused(Exception):
    """ZigZag changed the given unrolling into one that does not cover the layer."""


class Layer:
    """One case on one architecture: the energy of its mappings."""

    def __init__(self, case: Case, architecture: Architecture):
        self.case, self.architecture = case, architecture
        self.hardware = accelerator(architecture)
        self.node = layer_node(case, architecture.word_bits)
        self.sizes: dict[tuple[Any, ...], float] = {}

    def spatial(self, pair: Pair) -> tuple[SpatialMappingInternal, SpatialMappingInternal]:
        """The unrolling in ZigZag's form, with fractional and with integer factors."""
        sizes = self.hardware.operational_array.dimension_sizes
        axes = {
            axis: MappingSingleOADim({LayerDim(dim): factor for dim, factor in unrolling.items()})
            for axis, unrolling in zip((ROWS, COLUMNS), pair, strict=True)
            if unrolling
        }
        mapping = SpatialMapping(axes)
        mapping.initialize_oa_dims(sizes)
        self.node.spatial_mapping = mapping
        stage = SpatialMappingConversionStage([CostModelStage], accelerator=self.hardware, layer=self.node)
        return stage.convert_user_spatial_mapping(mapping)

    def best(self, pair: Pair, lpf_limit: int, rounding_limit: float, deadline: float) -> Found | None:
        """The cheapest of all loop orders of at most `lpf_limit` loops; None if none fits the memories.

        Orders that ZigZag miscounts by more than the rounding limit do not compete.
        """
        spatial, spatial_int = self.spatial(pair)
        exact = all(float(factor).is_integer() for _, factor in spatial.spatial_loop_dim_size)
        off = self.unit_rounding(spatial)
        found: Found | None = None
        seen: set[tuple[Any, ...]] = set()
        for temporal in self._temporal_mappings(spatial, lpf_limit):
            if time.process_time() > deadline:
                break
            key = _loops_by_memory(temporal)
            if key in seen:
                continue
            if not seen:
                self._check_covered(spatial, temporal)
            seen.add(key)
            cost = EnergyOnly(self.hardware, self.node, spatial, temporal)
            if found is None or cost.energy_total < found.energy:
                error = 0.0 if exact else max(off, self._tile_rounding(cost))
                if error <= rounding_limit:
                    accesses = self._accesses(cost)
                    found = Found(cost.energy_total, pair, spatial, spatial_int, temporal, accesses, exact, error)
        return found

    def _temporal_mappings(self, spatial: SpatialMappingInternal, lpf_limit: int) -> Iterator[TemporalMapping]:
        """What `LomaEngine.run` yields."""
        uneven = TemporalMappingType.UNEVEN
        engine = LomaEngine(
            accelerator=self.hardware,
            layer=self.node,
            spatial_mapping=spatial,
            mapping_type=uneven,
            loma_lpf_limit=lpf_limit,
        )
        engine.temporal_loop_dim_size = engine.get_temporal_loops()
        engine.update_min_lpf_factor(engine.temporal_loop_dim_size)
        engine.get_prime_factors()
        for order in engine.ordering_generator():
            allocator = RememberingAllocator(self.hardware, self.node, spatial, order, uneven, sizes=self.sizes)
            try:
                yield allocator.run()
            except (MemoryHierarchyTooSmallException, MemoryTooSmallException):
                continue

    def full_evaluation(self, found: Found) -> float:
        """Energy of a mapping by ZigZag's complete evaluation, to check that nothing was left out that matters."""
        return CostModelEvaluation(
            accelerator=self.hardware,
            layer=self.node,
            spatial_mapping=found.spatial,
            spatial_mapping_int=found.spatial_int,
            temporal_mapping=found.temporal,
            access_same_data_considered_as_no_access=False,
        ).energy_total

    def _check_covered(self, spatial: SpatialMappingInternal, temporal: TemporalMapping) -> None:
        covered = dict.fromkeys(DIMS, 1.0)
        loops = [loop for level in temporal.mapping_dic_origin[LayerOperand("O")] for loop in level]
        for dim, size in [*loops, *spatial.spatial_loop_dim_size]:
            covered[dim.name] *= size
        if any(abs(covered[dim] - size) > 1e-6 for dim, size in self.case.sizes.items()):
            raise SpatialMappingRefused(f"{covered} instead of {self.case.sizes}")

    def unit_rounding(self, spatial: SpatialMappingInternal) -> float:
        """Largest relative error in the units at a level, and in the units that a level sends different words to."""
        off = 0.0
        for operand in map(LayerOperand, OPERANDS):
            levels = spatial.mapping_dict_origin[operand]
            for level, count in enumerate(spatial.unit_count[operand]):
                true = prod(size for loops in levels[level:] for _, size in loops)
                off = max(off, abs(count / true - 1))
            for level, count in enumerate(spatial.mem_bw_boost[operand]):
                true = self._words(operand, levels[: level + 1]) / self._words(operand, levels[:level])
                off = max(off, abs(count / true - 1))
        return off

    def _tile_rounding(self, cost: CostModelEvaluation) -> float:
        """Largest relative error in the words of a tile: ZigZag rounds them, and the rows of an input down."""
        off = 0.0
        for operand in map(LayerOperand, OPERANDS):
            temporal = cost.temporal_mapping.mapping_dic_stationary[operand]
            spatial = cost.spatial_mapping.mapping_dict_origin[operand]
            for level in range(1, len(temporal) + 1):
                words = self._words(operand, [*spatial[:level], *temporal[:level]])
                off = max(off, abs(cost.mapping.data_elem_per_level_unrolled[operand][level] / words - 1))
        return off

    def _words(self, operand: LayerOperand, levels: Iterable[Iterable[tuple[LayerDim, float]]]) -> float:
        """Words of an operand that some loops span, not rounded."""
        extents = {LayerDim(dim): 1.0 for dim in DIMS}
        for loops in levels:
            for dim, size in loops:
                extents[dim] *= size
        followed = self.node.loop_relevancy_info.get_r_or_pr_layer_dims(operand)
        return prod(self._extent(dim, extents) for dim in followed)

    def _extent(self, dim: LayerDim, extents: dict[LayerDim, float]) -> float:
        if dim not in self.node.pr_loop:
            return extents[dim]
        (_, out_step), (_, kernel_step) = self.node.pr_scaling_factors[dim]
        out, kernel = (extents[related] for related in self.node.pr_loop[dim])
        return self.node.calc_pr_dimension_size(out_step, out, kernel_step, kernel)

    def _accesses(self, cost: CostModelEvaluation) -> dict[str, list[dict[str, int]]]:
        directions = {
            "to_inner": DataDirection.RD_OUT_TO_LOW,
            "to_outer": DataDirection.RD_OUT_TO_HIGH,
            "from_inner": DataDirection.WR_IN_BY_LOW,
            "from_outer": DataDirection.WR_IN_BY_HIGH,
        }
        return {
            operand: [
                {name: memory.get(direction) for name, direction in directions.items()}
                for memory in cost.memory_word_access[LayerOperand(operand)]
            ]
            for operand in OPERANDS
        }


def _loops_by_memory(temporal: TemporalMapping) -> tuple[Any, ...]:
    loops = temporal.mapping_dic_stationary
    return tuple(
        tuple(tuple(sorted((dim.name, size) for dim, size in level)) for level in loops[operand])
        for operand in sorted(loops, key=lambda operand: operand.name)
    )
