"""The energy model against a chip: what Eyeriss measured on AlexNet and VGG-16, and what the model says.

    python benchmarks/silicon.py [--write docs/silicon.md]

Measured: the tables of Chen et al., JSSC 2017 (recalled; their totals agree with the abstract). Power is that of the chip
alone, so the model's `dram` component is left out; DRAM and buffer traffic are compared in bytes.

The mapping is not searched but stated, in the paper's parameters: a *pass* works on `n` images, `e` output rows, `q r`
channels and `p t` filters, `m` filters have their sums in the buffer. Rows of the array hold the FY kernel rows of
`r` channel sets and `t` filter sets, its columns `e` output rows. A PE keeps FX taps of `q` channels and `p` filters and
walks along OX; `n` images go by before its weights change. Then other filters take the same inputs from the buffer, up to
`m`; then come the next channels, whose sums the buffer adds up; then the next rows, images, filters. AlexNet's
parameters are recalled from the paper. Those of VGG-16 are not: the script takes the cheapest that fit.

Two things of the chip are put differently for the model, with the same counts. A set wider than the 14 columns is folded onto
free rows: here the array is as wide as the set, and only the number of PEs is limited. An input scratchpad is a
window that slides, in which each word arrives once: here it holds the row that the window slides along.

Densities: inputs as measured. Outputs: as the next layer's inputs, though a pooling in between leaves fewer zeros than
the layer wrote; the last layer's as its inputs (assumed). Biases are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product, zip_longest
from math import ceil, exp, inf, log
from pathlib import Path

import numpy as np

from hwc_onnx.cost.accelerator import AcceleratorProfile
from hwc_onnx.cost.layer_mapping import LayerMapping
from hwc_onnx.cost.mapper import LayerOptions, evaluate_mapping
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.cost.types import NodeCost
from hwc_onnx.errors import MappingError
from hwc_onnx.graph.loop_dims import LoopDims

PES = 168
"""12 x 14."""
BITS = 16
BEGIN, END = "<!-- printed:begin -->", "<!-- printed:end -->"
FITTED = ("CONV2", "CONV3", "CONV4", "CONV5")
"""Layers that the unit of energy is fitted to and judged by: CONV1's 11x11 windows and colours are a case of their own."""


@dataclass(frozen=True)
class RowStationary:
    """Parameters of a row-stationary mapping, named as in the paper."""

    m: int
    n: int
    e: int
    p: int
    q: int
    r: int
    t: int

    def __str__(self) -> str:
        return f"{self.m} {self.n} {self.e} {self.p} {self.q} {self.r} {self.t}"

    def fits(self, dims: LoopDims, profile: AcceleratorProfile) -> bool:
        """Whether PEs and scratchpads are enough; the buffer is checked by the model."""
        words = {memory.name: (memory.bytes or 0) * 8 // BITS for memory in profile.memories}
        return (
            dims.FY * self.e * self.r * self.t <= PES
            and self.q * dims.FX <= words["input_spad"]
            and self.p * self.q * dims.FX <= words["weight_spad"]
            and self.p <= words["psum_spad"]
            and self.m % (self.p * self.t) == 0
        )

    def mapping(self, dims: LoopDims) -> LayerMapping:
        """The loops and what each memory holds."""
        temporal = (
            ("G", dims.G), ("K", ceil(dims.K / self.m)), ("B", ceil(dims.B / self.n)), ("OY", ceil(dims.OY / self.e)),
            ("C", ceil(dims.C / (self.q * self.r))), ("K", self.m // (self.p * self.t)),
            ("B", self.n), ("OX", dims.OX), ("FX", dims.FX), ("C", self.q), ("K", self.p),
        )  # fmt: skip
        inside = {
            "I": {"input_spad": 4, "global_buffer": 6},
            "W": {"weight_spad": 5},
            "O": {"psum_spad": 3, "global_buffer": 7},
        }
        rows = {"FY": dims.FY, "C": self.r, "K": self.t}
        return LayerMapping({"rows": rows, "columns": {"OY": self.e}}, temporal, inside)


@dataclass(frozen=True)
class Measured:
    """One layer of the published tables. Traffic in MB (10^6 bytes) and time are of the whole batch."""

    name: str
    dims: LoopDims
    milliwatts: float
    milliseconds: float
    input_zeros: float
    buffer_mb: float
    dram_mb: float
    parameters: RowStationary | None = None

    @property
    def pj_per_mac(self) -> float:
        """Chip energy of one multiply-accumulate."""
        return self.milliwatts * self.ns_per_mac

    @property
    def ns_per_mac(self) -> float:
        """Nanoseconds, loading included, for one multiply-accumulate of the whole array."""
        return self.milliseconds * 1e6 / self.dims.macs


@dataclass(frozen=True)
class Modelled:
    """What the model says of a layer: chip energy of a MAC in multiples of the reference MAC, traffic of the batch in MB."""

    layer: Measured
    parameters: RowStationary
    cost: NodeCost

    @property
    def per_mac(self) -> float:
        """Energy of a MAC, DRAM left out."""
        return (self.cost.total - self.cost.energy["dram"]) / self.layer.dims.macs

    @property
    def buffer_mb(self) -> float:
        """Words read from and written to the buffer."""
        accesses = self.cost.accesses["global_buffer"].values()
        return sum(sum(directions.values()) for directions in accesses) * BITS / 8e6

    @property
    def dram_mb(self) -> float:
        """DRAM traffic as it is stored, run lengths included."""
        terms = (term for term in self.cost.terms if term.component == "dram")
        return sum(term.count * term.factor * (term.bits or 0.0) for term in terms) / 8e6


def _conv(
    batch: int, cin: int, cout: int, size: int, kernel: int, stride: int = 1, pad: int = 1, groups: int = 1
) -> LoopDims:
    out = (size + 2 * pad - kernel) // stride + 1
    return LoopDims(
        B=batch, G=groups, K=cout // groups, C=cin // groups, OY=out, OX=out, FY=kernel, FX=kernel,
        stride=(stride, stride), pads=(pad,) * 4, input_size=(size, size),
    )  # fmt: skip


ALEXNET = (
    Measured("CONV1", _conv(4, 3, 96, 227, 11, 4, 0), 332, 20.9, 0.0001, 18.5, 5.0, RowStationary(96, 1, 7, 16, 1, 1, 2)),
    Measured("CONV2", _conv(4, 96, 256, 27, 5, 1, 2, 2), 288, 41.9, 0.387, 77.6, 4.0, RowStationary(64, 1, 27, 16, 2, 1, 1)),
    Measured("CONV3", _conv(4, 256, 384, 13, 3), 266, 23.6, 0.725, 50.2, 3.0, RowStationary(64, 4, 13, 16, 4, 1, 4)),
    Measured("CONV4", _conv(4, 384, 384, 13, 3, groups=2), 235, 18.4, 0.793, 37.4, 2.1, RowStationary(64, 4, 13, 16, 3, 2, 2)),
    Measured("CONV5", _conv(4, 384, 256, 13, 3, groups=2), 236, 10.5, 0.776, 24.9, 1.3, RowStationary(64, 4, 13, 16, 3, 2, 2)),
)  # fmt: skip
"""Batch 4, 1.0 V, 200 MHz."""

VGG16 = (
    Measured("CONV1-1", _conv(3, 3, 64, 224, 3), 247, 76.2, 0.016, 112.6, 15.4),
    Measured("CONV1-2", _conv(3, 64, 64, 224, 3), 218, 910.3, 0.477, 2402.8, 54.0),
    Measured("CONV2-1", _conv(3, 64, 128, 112, 3), 242, 470.3, 0.248, 1201.4, 33.4),
    Measured("CONV2-2", _conv(3, 128, 128, 112, 3), 231, 894.3, 0.387, 2402.8, 48.5),
    Measured("CONV3-1", _conv(3, 128, 256, 56, 3), 254, 241.1, 0.397, 607.4, 20.2),
    Measured("CONV3-2", _conv(3, 256, 256, 56, 3), 235, 460.9, 0.581, 1214.8, 32.2),
    Measured("CONV3-3", _conv(3, 256, 256, 56, 3), 233, 457.7, 0.587, 1214.8, 30.8),
    Measured("CONV4-1", _conv(3, 256, 512, 28, 3), 278, 135.8, 0.643, 321.8, 17.8),
    Measured("CONV4-2", _conv(3, 512, 512, 28, 3), 261, 254.8, 0.747, 643.7, 28.6),
    Measured("CONV4-3", _conv(3, 512, 512, 28, 3), 240, 246.3, 0.854, 643.7, 22.8),
    Measured("CONV5-1", _conv(3, 512, 512, 14, 3), 258, 54.3, 0.794, 90.0, 6.3),
    Measured("CONV5-2", _conv(3, 512, 512, 14, 3), 236, 53.7, 0.874, 90.0, 5.7),
    Measured("CONV5-3", _conv(3, 512, 512, 14, 3), 230, 53.7, 0.885, 90.0, 5.6),
)
"""Batch 3, 1.0 V, 200 MHz."""


def chip(gate: bool = True, coding: bool = True) -> AcceleratorProfile:
    """`eyeriss-v1` with an array that needs no folding and input scratchpads that hold a row; switches for broken twins."""
    profile = load_profile("eyeriss-v1")
    axes = tuple(axis.model_copy(update={"size": PES}) for axis in profile.array.axes)
    changes: dict[str, dict[str, object]] = {"input_spad": {"bytes": 1 << 20}}
    if not coding:
        changes["dram"] = {"formats": {}}
    memories = tuple(m.model_copy(update=changes.get(m.name, {})) for m in profile.memories)
    sparsity = profile.sparsity if gate else profile.sparsity.model_copy(update={"gate": None})
    array = profile.array.model_copy(update={"axes": axes})
    return profile.model_copy(update={"array": array, "memories": memories, "sparsity": sparsity})


def modelled(layers: Sequence[Measured], profile: AcceleratorProfile) -> list[Modelled]:
    """The model's account of consecutive layers, with their own parameters, or else the cheapest."""
    found = []
    for layer, following in zip_longest(layers, layers[1:]):
        options = LayerOptions(
            activation_bits=BITS, weight_bits=BITS, activation_density=1 - layer.input_zeros,
            output_density=1 - (following or layer).input_zeros, channel_constants=False,
        )  # fmt: skip
        chosen = layer.parameters or cheapest(layer.dims)
        if not chosen.fits(layer.dims, load_profile("eyeriss-v1")):
            raise ValueError(f"{layer.name}: {chosen} does not fit the chip")
        found.append(
            Modelled(layer, chosen, evaluate_mapping(layer.dims, chosen.mapping(layer.dims), profile, options))
        )
    return found


@cache
def cheapest(dims: LoopDims) -> RowStationary:
    """Parameters of the least energy, DRAM included, of those that fit, without any zeros."""
    profile, dense = chip(), LayerOptions(activation_bits=BITS, weight_bits=BITS, channel_constants=False)

    def energy(one: RowStationary) -> float:
        try:
            return evaluate_mapping(dims, one.mapping(dims), profile, dense).total
        except MappingError:
            return inf

    return min(candidates(dims), key=energy)


def candidates(dims: LoopDims) -> Iterator[RowStationary]:
    """Divisors and powers of two that fit the PEs."""
    real = load_profile("eyeriss-v1")
    rows = [e for e in range(4, 29) if dims.OY % e == 0]
    for e, p, q, r, t, n in product(rows, (8, 16), (1, 2, 3, 4), (1, 2, 4), (1, 2, 4), (1, dims.B)):
        for m in range(p * t, dims.K + 1, p * t):
            one = RowStationary(m, n, e, p, q, r, t)
            if dims.K % m == 0 and q * r <= dims.C and one.fits(dims, real):
                yield one


def picojoules(found: Sequence[Modelled]) -> float:
    """The reference MAC for which the fitted layers cost what they measured, as a geometric mean."""
    shares = [log(one.layer.pj_per_mac / one.per_mac) for one in found if one.layer.name in FITTED]
    return exp(sum(shares) / len(shares))


def gating_line(zeros: Sequence[float], energies: Sequence[float]) -> str:
    """Least squares of energy over the share of zero inputs, as a (1 - s z)."""
    x, y = sum(zeros) / len(zeros), sum(energies) / len(energies)
    slope = sum((z - x) * (e - y) for z, e in zip(zeros, energies, strict=True)) / sum((z - x) ** 2 for z in zeros)
    start = y - slope * x
    return f"{start:.1f} (1 - {-slope / start:.2f} z)"


def constant_power(found: Sequence[Modelled]) -> tuple[float, float]:
    """Picojoules of the reference MAC and milliwatts that are drawn all the time: least squares of relative errors."""
    measured = np.array([one.layer.pj_per_mac for one in found])
    parts = np.array([(one.per_mac, one.layer.ns_per_mac) for one in found]) / measured[:, None]
    unit, power = np.linalg.lstsq(parts, np.ones(len(found)), rcond=None)[0]
    return float(unit), float(power)


def energy_table(
    found: Sequence[Modelled], ungated: Sequence[Modelled], units: tuple[float, float], power: tuple[float, float]
) -> Iterator[str]:
    """Energy of a MAC in rows of Markdown; `units` are the reference MACs with and without gating."""
    yield "| layer | zero inputs | mW | measured pJ/MAC | model | model / measured | without gating | with constant power |"
    yield "|---|---|---|---|---|---|---|---|"
    for one, dense in zip(found, ungated, strict=True):
        layer, energy = one.layer, one.per_mac * units[0]
        constant = one.per_mac * power[0] + layer.ns_per_mac * power[1]
        shares = (value / layer.pj_per_mac for value in (energy, dense.per_mac * units[1], constant))
        yield (
            f"| {layer.name} | {layer.input_zeros:.1%} | {layer.milliwatts:.0f} | {layer.pj_per_mac:.1f} | {energy:.1f} | "
            f"{' | '.join(f'{share:.2f}' for share in shares)} |"
        )


def traffic_table(found: Sequence[Modelled], plain: Sequence[Modelled]) -> Iterator[str]:
    """DRAM and buffer traffic in rows of Markdown."""
    yield "| layer | m n e p q r t | DRAM MB | model | model / measured | without coding | buffer MB | model | model / measured |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for one, raw in zip(found, plain, strict=True):
        layer = one.layer
        yield (
            f"| {layer.name} | {one.parameters} | {layer.dram_mb:.1f} | {one.dram_mb:.1f} | {one.dram_mb / layer.dram_mb:.2f} "
            f"| {raw.dram_mb / layer.dram_mb:.2f} | {layer.buffer_mb:.1f} | {one.buffer_mb:.1f} "
            f"| {one.buffer_mb / layer.buffer_mb:.2f} |"
        )


def nest(one: Modelled) -> str:
    """PEs, and loops from the outermost; for the loops after the first bar the buffer keeps its inputs, after the second the
    PEs keep their weights."""
    mapping = one.parameters.mapping(one.layer.dims)
    spread = [f"{d}{n}" for dims in mapping.spatial.values() for d, n in dims.items() if n > 1]
    loops = [f"{d}{n}" if n > 1 else "" for d, n in mapping.temporal]
    bars = {len(loops) - mapping.inside["I"]["global_buffer"], len(loops) - mapping.inside["W"]["weight_spad"]}
    marked = [f"| {loop}".rstrip() if at in bars else loop for at, loop in enumerate(loops)]
    return f"{one.layer.name}  PEs {' '.join(spread):16}  loops {' '.join(filter(None, marked))}"


def report() -> Iterator[str]:
    """Everything, as Markdown."""
    gated, ungated, uncoded = chip(), chip(gate=False), chip(coding=False)
    found, dense = modelled(ALEXNET, gated), modelled(ALEXNET, ungated)
    vgg = modelled(VGG16, gated)
    units, power = (picojoules(found), picojoules(dense)), constant_power([*found, *vgg])
    judged = [one for one in found if one.layer.name in FITTED]
    zeros = [one.layer.input_zeros for one in judged]
    yield "## AlexNet, batch 4\n"
    yield from energy_table(found, dense, units, power)
    yield (
        f"\n*model*: one reference MAC is {units[0]:.2f} pJ, fitted to {FITTED[0]} .. {FITTED[-1]}; *without gating* it is "
        f"{units[1]:.2f} pJ. Least squares over these layers, z the share of zero inputs: measured "
        f"{gating_line(zeros, [one.layer.pj_per_mac for one in judged])}, model "
        f"{gating_line(zeros, [one.per_mac * units[0] for one in judged])} pJ/MAC. *With constant power*: {power[0]:.2f} pJ and "
        f"{power[1]:.0f} mW for the measured time, fitted to all layers of both networks.\n"
    )
    yield from traffic_table(found, modelled(ALEXNET, uncoded))
    third, fourth = ALEXNET[2], ALEXNET[3]
    twin = modelled([replace(third, parameters=fourth.parameters)], gated)[0]
    yield (
        f"\n{third.name} with the parameters of {fourth.name}: buffer {twin.buffer_mb:.1f} MB, "
        f"{twin.buffer_mb / third.buffer_mb:.2f} of the measured; energy {twin.per_mac * units[0]:.1f} pJ/MAC.\n"
    )
    yield "```"
    yield from map(nest, found)
    yield "```\n"
    yield "## VGG-16, batch 3, the cheapest parameters that fit\n"
    yield from energy_table(vgg, modelled(VGG16, ungated), units, power)
    yield ""
    yield from traffic_table(vgg, modelled(VGG16, uncoded))


def filled(page: str, body: str) -> str:
    """The page with its printed part made anew (ValueError when its marks are missing)."""
    if BEGIN not in page or END not in page:
        raise ValueError(f"no {BEGIN} .. {END} block to fill")
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{body}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Compare the energy model with Eyeriss' measurements.")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="put the tables into this page instead of printing them"
    )
    page = parser.parse_args().write
    body = "\n".join(report())
    if page is None:
        print(body)
    else:
        page.write_text(filled(page.read_text(encoding="utf-8"), body), encoding="utf-8")


if __name__ == "__main__":
    main()
