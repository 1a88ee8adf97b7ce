"""What an accelerator is: arithmetic, array, memories, sparsity features and their energies, validated with field paths.

A profile is one YAML file. Memories are listed from the multiplier outwards; an operand's words travel through the
memories that hold it, in that order. Every number is covered by an entry of `sources` or of `assumed`.

The text under each field, with its unit, is published in `hwc_onnx/accelerator.schema.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hwc_onnx.cost.consistency import check_consistency

Operand = Literal["I", "W", "O"]
Dim = Literal["B", "G", "K", "C", "OY", "OX", "FY", "FX"]
Action = Literal["mac", "read_I", "read_W", "psum"]
Law = Literal[
    "fixed", "gated_bits", "composable", "subword", "serial_weights", "serial_activations", "serial_both"
]  # fmt: skip

# numbers and switches are strict: a quoted number or a `true` in the place of one is a mistake, not a 1
Energy = Annotated[float, Field(ge=0.0, strict=True)]
Above = Annotated[float, Field(gt=0.0, strict=True)]
Factor = Annotated[float, Field(ge=1.0, strict=True)]
Share = Annotated[float, Field(ge=0.0, le=1.0, strict=True)]
Positive = Annotated[int, Field(gt=0, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
Bits = Annotated[int, Field(ge=1, le=64, strict=True)]
Switch = Annotated[bool, Field(strict=True)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
Granules = Literal["exact"] | Annotated[tuple[Positive, ...], Field(min_length=1)]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Wide(_Model):
    """How the multiplier handles a pair of operands both wider than `mac.bits`, as factors of one native MAC."""

    passes: Factor
    """Cycles, as a factor; one wide operand alone takes its square root."""
    energy_factor: Factor
    """Energy, as a factor; one wide operand alone takes its square root."""


class Mac(_Model):
    """The multiplier-accumulator."""

    law: Law
    """How energy and MACs per cycle follow the operand widths."""
    bits: Bits
    """bit: the widest operand that is taken in one pass."""
    min_bits: Bits
    """bit: the narrowest operand that still saves arithmetic; narrower ones cost what this one does."""
    energy_pj: Energy
    """pJ: one MAC with both operands at `bits`, accumulator included. 0 leaves arithmetic out of every sum."""
    accumulator_bits: Annotated[int, Field(ge=1, le=128, strict=True)]
    """bit: width of a partial sum, wherever it is stored."""
    lanes_reduce: Switch = False
    """The products of one PE's lanes are added before the accumulator, so one accumulator access serves them all."""
    overhead: Energy = 0.0
    """Share by which a split multiplier is dearer than a whole one (law `subword` only)."""
    static_share: Share | None = None
    """Share of a MAC's energy that no narrow operand saves: clock, registers (law `gated_bits` only)."""
    wide: Wide | None = None
    """Operands wider than `bits`; left out, each wide operand doubles cycles and energy (emulated)."""


class Axis(_Model):
    """One axis of the PE array."""

    name: Name
    """Called so in `spans` and in mappings."""
    size: Positive
    """PEs along this axis."""
    dims: Annotated[tuple[Dim, ...], Field(min_length=1)]
    """Loop dimensions that may be spread along this axis."""


class Array(_Model):
    """The PE array and its network."""

    axes: Annotated[tuple[Axis, ...], Field(min_length=1)]
    """Axes of the array; their sizes multiply to the number of PEs."""
    hop_pj_per_bit: Energy = 0.0
    """pJ/bit: one bit over one hop of the on-array network."""
    hops: Mapping[Operand, Energy] = {"I": 1.0, "W": 1.0, "O": 1.0}
    """Hops of a word of each operand between the array's edge and a PE; an operand left out takes 1."""


class Format(_Model):
    """How zeros are left out of a stored tensor (see `hwc_onnx.cost.formats`)."""

    kind: Literal["bitmask", "csc", "rlc", "nm", "blocks"]
    """Bitmask, compressed sparse columns, run-length code, N:M, or a bitmask of blocks."""
    run_bits: Positive = 4
    """bit: a count or index (`csc` and `rlc` only)."""
    selectable: Switch = True
    """A tensor that would grow stays uncompressed."""


class Memory(_Model):
    """One memory, or one kind of memory that several PEs or groups of PEs have each."""

    name: Name
    """Called so in tables and in field paths."""
    operands: Annotated[tuple[Operand, ...], Field(min_length=1)]
    """Which of inputs (I), weights (W), outputs and partial sums (O) it holds."""
    spans: Literal["all"] | tuple[str, ...] = "all"
    """Array axes that one instance serves: `all` is one for the array, [] one per PE."""
    bytes: Positive | None
    """byte: capacity of one instance, shared by its operands; null for the last memory only."""
    read_pj_per_bit: Energy
    """pJ/bit: reading one bit of the stored width."""
    write_pj_per_bit: Energy
    """pJ/bit: writing one bit of the stored width."""
    pack: Granules = (8, 16)
    """bit: widths that a word can be stored at; `exact` stores any width."""
    pack_weights: Granules | None = None
    """bit: the same for weights alone, where they are packed otherwise (last memory only)."""
    kind: Literal["register", "buffer", "dram"]
    """The component it is reported as. A word wider than a register passes through it in pieces."""
    double_buffered: Switch = False
    """Working tiles may take half of it."""
    home: Switch = False
    """Activations can stay here between layers."""
    accumulator: Switch = False
    """Results are held at the accumulator's width even when they are finished."""
    formats: Mapping[Literal["W", "A"], Format] = {}
    """Zero-suppressing storage of weights (W) and activations (A)."""
    bits_per_cycle: Positive | None = None
    """bit/cycle: bandwidth, reads and writes together; left out, it never limits."""

    def granules(self, weights: bool) -> Granules:
        """The widths that a word of weights, or of anything else, is stored at."""
        return self.pack_weights if weights and self.pack_weights is not None else self.pack


class Gate(_Model):
    """Actions that do not happen when an operand equals its zero point; the cycle is spent."""

    operands: Annotated[tuple[Literal["I", "W"], ...], Field(min_length=1)]
    """Whose zeros are noticed."""
    saves: Annotated[tuple[Action, ...], Field(min_length=1)]
    """Actions that are spared: the MAC, the operand reads in the PE, the partial-sum access in the PE."""
    residual: Share = 0.05
    """Share of itself that a spared action still costs."""
    flag_bits: Count = 0
    """bit: read with each noticed operand, to know."""


class Skip(_Model):
    """Like a gate, and the cycle is not spent either."""

    operands: Annotated[tuple[Literal["I", "W"], ...], Field(min_length=1)]
    """Whose zeros are skipped."""
    saves: Annotated[tuple[Action, ...], Field(min_length=1)] = ("mac", "read_I", "read_W", "psum")
    """Actions that are spared."""
    imbalance: Factor = 1.2
    """Time over the ideal: PEs wait for each other."""


class Sparsity(_Model):
    """What zeros save: gating and skipping (here) and storage formats (in each memory) are independent switches."""

    gate: Gate | None = None
    """Spared actions."""
    skip: Skip | None = None
    """Spared actions and cycles."""
    patterns: tuple[Annotated[str, Field(pattern=r"^([1-9]\d*:|1x)[1-9]\d*$")], ...] = ()
    """Patterns of weights that the array skips: N:M, for example "2:4", or blocks of input channels, for example "1x4"."""
    decode_pj: Energy = 0.0
    """pJ: unpacking one element of a compressed stream."""


class Vector(_Model):
    """The post-processing unit: everything that is not a layer."""

    op_pj: Energy
    """pJ: one element operation (addition, comparison, requantization)."""
    lookup_pj: Energy
    """pJ: one table look-up (exponential, error function, reciprocal)."""
    lanes: Positive
    """Element operations per cycle."""


class Static(_Model):
    """Power that is drawn in every cycle, whatever happens."""

    power_mw: Energy
    """mW: leakage and clock of the whole accelerator."""


class Residency(_Model):
    """What stays on chip between layers and between inferences."""

    activations: Literal["auto", "never"] = "auto"
    """`auto`: in the home memory, where there is one, when that is cheapest; `never`: all travel through the last memory."""
    weights_bytes: Count = 0
    """byte: weights up to this size are on chip for ever and never fetched."""


class Pinned(_Model):
    """The mapping of one layer shape, instead of a search."""

    layer: Mapping[Dim, Positive]
    """Sizes of the loop dimensions of the shape; those left out are 1."""
    spatial: Mapping[str, Mapping[Dim, Positive]]
    """PEs over which each dimension is spread, by array axis."""
    temporal: tuple[tuple[Dim, Positive], ...]
    """(dimension, trips) of the loops in time, outermost first."""
    inside: Mapping[Operand, Mapping[str, Count]] = {}
    """Operand and memory: how many of the innermost loops its tile is held for; left out, as many as fit."""


class MappingRules(_Model):
    """What the array's control allows. A rule holds for every layer that has a mapping which follows it."""

    unroll: tuple[Dim, ...] = ()
    """Dimensions that are spread over the array wherever the layer has them, kernel dimensions whole."""
    inner: tuple[Dim, ...] = ()
    """Loops inside the first loop over the last of these dimensions: over the others, in this order from the innermost,
    one each, kernel dimensions whole. Layers without that last dimension are free."""
    pinned: tuple[Pinned, ...] = ()
    """Shapes whose mapping is given."""


class AcceleratorProfile(_Model):
    """One accelerator, schema 1. Loop dimensions: B batch, G groups, K output channels, C input channels, OY OX output
    rows and columns, FY FX kernel rows and columns."""

    schema_version: Literal[1] = Field(alias="schema")
    """Version of this format."""
    name: Name
    """Shown in tables."""
    description: Annotated[str, Field(min_length=1)]
    """Shown in lists."""
    node_nm: Above
    """nm: process; information only, nothing is scaled with it."""
    unit: Literal["pJ", "normalised"]
    """Of every energy: picojoules, or the energy of one reference MAC (then read pJ as MAC in all fields)."""
    reference_mac_pj: Above | None = None
    """pJ: the MAC that is 1 in a normalised file; turns its energies into joules, and static power into MACs."""
    frequency_mhz: Above
    """MHz: turns cycles into seconds, and static power into energy per cycle."""
    mac: Mac
    """The multiplier."""
    array: Array
    """The PEs."""
    memories: Annotated[tuple[Memory, ...], Field(min_length=2)]
    """From the multiplier outwards, the last one unlimited and off chip."""
    sparsity: Sparsity = Sparsity()
    """What zeros save; left out, nothing."""
    vector: Vector
    """The post-processing unit."""
    static: Static | None = None
    """Static power; left out, it is not counted."""
    residency: Residency = Residency()
    """What stays on chip."""
    mapping: MappingRules = MappingRules()
    """What mappings are possible; left out, all are."""
    sources: Mapping[str, Annotated[str, Field(min_length=1)]]
    """Field path: where its numbers are from. A path covers all below it."""
    assumed: tuple[str, ...] = ()
    """Field paths whose numbers have no source."""

    @model_validator(mode="after")
    def _consistent(self) -> AcceleratorProfile:
        check_consistency(self)
        return self

    def memory(self, name: str) -> Memory:
        """The memory of this name (KeyError if there is none)."""
        return {memory.name: memory for memory in self.memories}[name]

    @property
    def home(self) -> Memory | None:
        """The memory in which activations can stay between layers."""
        return next((memory for memory in self.memories if memory.home), None)

    def digest(self) -> str:
        """SHA-256 of everything that can change an energy."""
        text = json.dumps(
            self.model_dump(by_alias=True, mode="json", exclude={"sources", "assumed", "description"}), sort_keys=True
        )
        return hashlib.sha256(text.encode()).hexdigest()
