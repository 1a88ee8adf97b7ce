"""What an accelerator is: arithmetic, array, memories, sparsity features and their energies, validated with field paths.

A profile is one YAML file. Memories are listed from the multiplier outwards; an operand's words travel through the
memories that hold it, in that order. Every number is covered by an entry of `sources` or of `assumed`.
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
Energy = Annotated[float, Field(ge=0.0)]
Positive = Annotated[int, Field(gt=0)]
Action = Literal["mac", "read_I", "read_W", "psum"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


class Wide(_Model):
    """How a multiplier handles an operand wider than `mac.bits`: passes and energy, as factors of one native MAC."""

    passes: Annotated[float, Field(ge=1.0)]
    energy_factor: Annotated[float, Field(ge=1.0)]


class Mac(_Model):
    """The multiplier-accumulator. `energy_pj` is one MAC with both operands at `bits`, accumulator included.

    `law` says how energy and lanes follow the operand widths (see `hwc_onnx.cost.laws`). `lanes_reduce`: the products
    of one PE's lanes are added before the accumulator, so one accumulator access serves them all.
    """

    law: Literal["fixed", "composable", "subword", "serial_weights", "serial_activations", "serial_both"]
    bits: Positive
    min_bits: Positive = 2
    energy_pj: Energy
    accumulator_bits: Positive
    lanes_reduce: bool = False
    overhead: Annotated[float, Field(ge=0.0)] = 0.0
    wide: Wide | None = None


class Axis(_Model):
    """One axis of the PE array: `size` PEs, over which the loop dimensions `dims` may be unrolled."""

    name: str
    size: Positive
    dims: Annotated[tuple[Dim, ...], Field(min_length=1)]


class Array(_Model):
    """The PE array; a word arriving at or leaving a PE costs `hops` times `hop_pj_per_bit` for each of its bits."""

    axes: Annotated[tuple[Axis, ...], Field(min_length=1)]
    hop_pj_per_bit: Energy = 0.0
    hops: Mapping[Operand, Annotated[float, Field(ge=0.0)]] = {"I": 1.0, "W": 1.0, "O": 1.0}


class Format(_Model):
    """How zeros are left out of a stored tensor (see `hwc_onnx.cost.formats`).

    `selectable`: a tensor that would grow stays uncompressed. `occupancy`: compression also enlarges the capacity.
    """

    kind: Literal["bitmask", "csc", "rlc", "nm"]
    run_bits: Positive = 4
    selectable: bool = True


class Memory(_Model):
    """One memory. `spans` are the array axes that one instance serves ("all": one for the array; []: one per PE).

    `bytes` is the capacity of one instance, shared by its `operands`; null means unlimited (only the last memory).
    `pack` lists the widths a word can be stored at ("exact": any); energies are per bit of the stored width.
    `home` marks the memory in which activations can stay between layers. `accumulator` memories hold partial sums at
    the accumulator's width. `formats` are zero-suppressing formats of weights (W) and activations (A).
    """

    name: str
    operands: Annotated[tuple[Operand, ...], Field(min_length=1)]
    spans: Literal["all"] | tuple[str, ...] = "all"
    bytes: Positive | None
    read_pj_per_bit: Energy
    write_pj_per_bit: Energy
    pack: Literal["exact"] | Annotated[tuple[Positive, ...], Field(min_length=1)] = (8, 16)
    kind: Literal["register", "buffer", "dram"]
    double_buffered: bool = False
    home: bool = False
    accumulator: bool = False
    formats: Mapping[Literal["W", "A"], Format] = {}
    bits_per_cycle: Positive | None = None


class Gate(_Model):
    """Actions that do not happen when one of `operands` equals its zero point; each costs `residual` of itself then.

    `flag_bits` more bits are read with each of `operands`, to know.
    """

    operands: Annotated[tuple[Literal["I", "W"], ...], Field(min_length=1)]
    saves: Annotated[tuple[Action, ...], Field(min_length=1)]
    residual: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    flag_bits: Annotated[int, Field(ge=0)] = 0


class Skip(_Model):
    """Like a gate, and the cycle is not spent either; `imbalance` lengthens what remains (PEs wait for each other)."""

    operands: Annotated[tuple[Literal["I", "W"], ...], Field(min_length=1)]
    saves: Annotated[tuple[Action, ...], Field(min_length=1)] = ("mac", "read_I", "read_W", "psum")
    imbalance: Annotated[float, Field(ge=1.0)] = 1.2


class Sparsity(_Model):
    """Three independent switches: gating, skipping (here) and storage formats (in each memory).

    `patterns` are the N:M patterns of weights that the array skips, for example "2:4". `decode_pj` is the energy of
    unpacking one element of a compressed stream.
    """

    gate: Gate | None = None
    skip: Skip | None = None
    patterns: tuple[Annotated[str, Field(pattern=r"^[1-9]\d*:[1-9]\d*$")], ...] = ()
    decode_pj: Energy = 0.0


class Vector(_Model):
    """The post-processing unit: energy of one element operation and of one table look-up, elements per cycle."""

    op_pj: Energy
    lookup_pj: Energy
    lanes: Positive


class Static(_Model):
    """Power that is drawn in every cycle, whatever happens."""

    power_mw: Annotated[float, Field(ge=0.0)]


class Residency(_Model):
    """Whether activations stay on chip between layers, and how many bytes of weights stay there for ever."""

    activations: Literal["auto", "never"] = "auto"
    weights_bytes: Annotated[int, Field(ge=0)] = 0


class AcceleratorProfile(_Model):
    """One accelerator, schema 1. Energies in pJ, or in units of one reference MAC when `unit` is "normalised"."""

    schema_version: Literal[1] = Field(alias="schema")
    name: str
    description: str
    node_nm: Annotated[float, Field(gt=0)]
    unit: Literal["pJ", "normalised"] = "pJ"
    reference_mac_pj: Annotated[float, Field(gt=0)] | None = None
    frequency_mhz: Annotated[float, Field(gt=0)]
    mac: Mac
    array: Array
    memories: Annotated[tuple[Memory, ...], Field(min_length=2)]
    sparsity: Sparsity = Sparsity()
    vector: Vector
    static: Static | None = None
    residency: Residency = Residency()
    sources: Mapping[str, str]
    assumed: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> AcceleratorProfile:
        check_consistency(self)
        return self

    def memory(self, name: str) -> Memory:
        """The memory of this name (KeyError if there is none)."""
        return {memory.name: memory for memory in self.memories}[name]

    def chain(self, operand: Operand) -> tuple[Memory, ...]:
        """The memories an operand travels through, from the multiplier outwards."""
        return tuple(memory for memory in self.memories if operand in memory.operands)

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
