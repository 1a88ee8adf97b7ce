"""The best mapping of a tiny layer on the tiny accelerator, found by trying all of them.

Tried: every unroll (kernels whole or not at all), every way to cut each loop in two, every
order of the loops, every placement in the shared buffer. The energy is written out here, memory by memory, with the
numbers of `tiny_accelerator`; only the word counts come from `Nests`, which `test_access` checks loop by loop.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from hwc_onnx.cost.access import Nests
from hwc_onnx.cost.laws import stored_bits
from hwc_onnx.cost.operands import DIMS, INDEX, Nest
from hwc_onnx.graph.loop_dims import LoopDims
from tests.cost.loop_walk import elements
from tests.cost.tiny_accelerator import tiny

ROWS, COLUMNS = ("C", "FY"), ("K", "OY")


@dataclass(frozen=True)
class Traffic:
    """Words of one mapping: into the registers of all PEs, asked of the buffer, into the buffer (outputs: out of them); sums that PEs start from nothing."""

    registers: dict[str, np.ndarray]
    asked: dict[str, np.ndarray]
    buffers: dict[str, np.ndarray]
    started: int


def energy(dims: LoopDims, traffic: Traffic, bits: tuple[int, int, int]) -> np.ndarray:
    """Energy of a layer all of whose tensors are in DRAM; `bits` of inputs, weights and stored outputs."""
    memory = {m.name: m for m in tiny().memories}
    hop = tiny().array.hop_pj_per_bit
    total = np.asarray(dims.macs * tiny().mac.energy_pj, dtype=float)
    for operand, register, buffer, width in (("I", "i_reg", "buffer", bits[0]), ("W", "w_reg", "w_buffer", bits[1])):
        at_register = stored_bits(width, memory[register].pack)
        at_buffer = stored_bits(width, memory[buffer].pack)
        total = total + dims.macs * at_register * memory[register].read_pj_per_bit
        total = total + traffic.registers[operand] * at_register * (memory[register].write_pj_per_bit + hop)
        total = total + traffic.asked[operand] * at_buffer * memory[buffer].read_pj_per_bit
        total = total + traffic.buffers[operand] * (
            at_buffer * memory[buffer].write_pj_per_bit + width * memory["dram"].read_pj_per_bit
        )
    out, buffer, dram = memory["o_reg"], memory["buffer"], memory["dram"]
    outputs = Nest(dims).words("O")
    total = total + dims.macs * 24 * (out.read_pj_per_bit + out.write_pj_per_bit)
    total = total + traffic.registers["O"] * 24 * (out.read_pj_per_bit + hop)
    back = traffic.asked["O"] - outputs
    total = total + back * 24 * (buffer.write_pj_per_bit + buffer.read_pj_per_bit + hop)
    total = total + np.where(back > 0, traffic.registers["O"] - traffic.started, 0) * 24 * out.write_pj_per_bit
    back = traffic.buffers["O"] - outputs
    total = total + back * 24 * (
        buffer.read_pj_per_bit + dram.write_pj_per_bit + dram.read_pj_per_bit + buffer.write_pj_per_bit
    )
    finished = stored_bits(bits[2], buffer.pack)
    return total + outputs * (
        finished * (buffer.write_pj_per_bit + buffer.read_pj_per_bit) + bits[2] * dram.write_pj_per_bit
    )


def started(dims: LoopDims, pes: dict[str, int]) -> int:
    """Sums that PEs start from nothing: for each PE the outputs that it ever adds to, by looking at every product."""
    seen = set()
    for index in itertools.product(*(range(getattr(dims, d)) for d in DIMS)):
        point = dict(zip(DIMS, index, strict=True))
        touched = elements("O", dims, point)
        if touched is not None:
            seen.add((*(point[d] % pes[d] for d in DIMS), touched))
    return len(seen)


def best_energy(dims: LoopDims, bits: tuple[int, int, int]) -> float:
    """The least energy over all mappings."""
    found = np.inf
    for unroll in _unrolls(dims):
        trips = {d: ceil(getattr(dims, d) / prod(axis.get(d, 1) for axis in unroll)) for d in DIMS}
        for loops in itertools.product(*(_cuts(d, trips[d]) for d in DIMS)):
            flat = [loop for cut in loops for loop in cut]
            orders = sorted(set(itertools.permutations(flat)))
            found = min(found, _best_of_orders(dims, unroll, orders, bits))
    return found


def _unrolls(dims: LoopDims) -> list[tuple[dict[str, int], dict[str, int]]]:
    def axis(names: tuple[str, str], kernel: str) -> list[dict[str, int]]:
        useful = [d for d in names if getattr(dims, d) > 1 and (d != kernel or getattr(dims, d) == 2)]
        return [{}, *({d: 2} for d in useful)]

    return list(itertools.product(axis(ROWS, "FY"), axis(COLUMNS, "")))


def _cuts(d: str, trips: int) -> list[tuple[tuple[str, int], ...]]:
    if trips == 1:
        return [()]
    return [((d, trips),), *(((d, n), (d, ceil(trips / n))) for n in range(2, trips))]


def _best_of_orders(dims, unroll, orders, bits):
    count, depth = len(orders), len(orders[0])
    loop_dims = np.array([[INDEX[d] for d, _ in order] for order in orders], dtype=np.int64).reshape(count, depth)
    sizes = np.array([[n for _, n in order] for order in orders], dtype=np.int64).reshape(count, depth)
    spread = np.array([[[axis.get(d, 1) for d in DIMS] for axis in unroll]])
    nests = Nests(Nest(dims), spread, np.zeros(count, dtype=np.int64), loop_dims, sizes)
    memory = {m.name: m for m in tiny().memories}
    every, none = (0, 1), ()
    pes = {d: prod(axis.get(d, 1) for axis in unroll) for d in DIMS}
    position, registers, asked = {}, {}, {}
    for operand, name, width in (("I", "i_reg", bits[0]), ("W", "w_reg", bits[1]), ("O", "o_reg", 24)):
        words = memory[name].bytes * 8 // stored_bits(width, memory[name].pack)
        position[operand] = nests.place(nests.tiles(operand, none), np.array([float(words)]))[0]
        if (position[operand] < 0).any():
            return np.inf
        registers[operand] = nests.moved(operand, position[operand], none)
        asked[operand] = nests.moved(operand, position[operand], every)
    words = memory["w_buffer"].bytes * 8 // stored_bits(bits[1], memory["w_buffer"].pack)
    tiles = {operand: nests.tiles(operand, every) for operand in "IWO"}
    at = np.maximum(nests.place(tiles["W"], np.array([float(words)]))[0], position["W"])
    fits = tiles["W"][nests.rows, at] <= words
    weights = nests.moved("W", at, every)
    found = np.inf
    for share in range(nests.depth + 1):
        at = np.maximum(share, position["I"])
        left = memory["buffer"].bytes * 8 - tiles["I"][nests.rows, at] * stored_bits(bits[0], memory["buffer"].pack)
        placed = (tiles["O"] * 24 <= left[:, None]).sum(axis=1) - 1
        through = asked["O"] == Nest(dims).words("O")
        valid = fits & (left >= 0) & (through | (placed >= position["O"]))
        if not valid.any():
            continue
        moved = nests.moved("O", np.maximum(placed, position["O"]), every)
        buffers = {"I": nests.moved("I", at, every), "W": weights, "O": np.where(through, asked["O"], moved)}
        total = energy(dims, Traffic(registers, asked, buffers, started(dims, pes)), bits)
        found = min(found, float(np.where(valid, total, np.inf).min()))
    return found
