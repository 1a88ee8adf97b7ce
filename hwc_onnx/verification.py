"""Check a compressed file against its original, trusting nothing but the two files and ONNX Runtime.

It must open at all four optimisation levels, compute (nearly) the same at each, declare the same inputs, outputs and
foreign metadata as the original, hold integers that fit the widths it declares, and, when it names its source, name
this original. Widths, zeros, bytes and energy are counted again from the file. A model with operators that ONNX
Runtime does not implement is not run, and the report says so.

A file with Quant nodes (dialect qonnx) is run as the QuantizeLinear, Clip and DequantizeLinear that stand for them. The
runtime that a dialect is for is tried too where it is installed, and TensorRT's published rules are checked on a file
that was written for it. `everywhere` tries every runtime on every file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from hwc_onnx.accuracy.inputs import input_specs
from hwc_onnx.accuracy.reference import is_finite
from hwc_onnx.accuracy.runner import LEVELS, cpu_features, open_session, run
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.declarations import declarations, declared, other_inputs, sizes_of
from hwc_onnx.errors import UsageError
from hwc_onnx.events import Listener, silent
from hwc_onnx.export import PREFIX
from hwc_onnx.graph.domains import obstacle_to_running
from hwc_onnx.graph.infer import input_shapes_of
from hwc_onnx.graph.loading import Loaded, load_model
from hwc_onnx.graph.open_sizes import settle_open_sizes
from hwc_onnx.graph.read_qdq import BITS_KEY, read_qdq
from hwc_onnx.level_agreement import (
    Check,
    LevelResult,
    has_answers,
    levels_agree,
    relative_error,
    run_levels,
    same_largest,
    sensitivity,
)
from hwc_onnx.normalize.compare import random_feeds
from hwc_onnx.runtimes.capabilities import (
    Capability,
    dialect_check,
    dialect_of,
    onnxruntime_rows,
    openvino_rows,
    qonnx_row,
    tensorrt_rows,
)

if TYPE_CHECKING:
    from hwc_onnx.cost.profile import AcceleratorProfile
    from hwc_onnx.cost.types import ModelCost

SOURCE_KEY = "hwc.source"
"""Metadata: SHA-256 of the original's file."""

RANDOM_SAMPLES = 16


@dataclass(frozen=True)
class VerifyReport:
    """All checks, and what was counted from the file.

    `agreement` is the share of samples on which the compressed and the original model have the same largest output (None
    where no output has several scores for each sample), `relative_error` the root-mean-square difference of their outputs over the original's. `weight_bits` and
    `activation_bits` count tensors by width. The costs are None without an accelerator. `capabilities` say what the file
    does in each runtime that was tried.
    """

    checks: tuple[Check, ...]
    levels: tuple[LevelResult, ...]
    agreement: float | None
    relative_error: float
    n_samples: int
    real_samples: bool
    file_bytes: int
    original_bytes: int
    weight_bits: Mapping[int, int] = field(default_factory=dict)
    activation_bits: Mapping[int, int] = field(default_factory=dict)
    weight_density: float = 1.0
    cost: ModelCost | None = None
    float_cost: ModelCost | None = None
    cpu_features: str = ""
    dialect: str = "ort"
    capabilities: tuple[Capability, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every check is good."""
        return all(check.passed for check in self.checks)


def verify(
    compressed: str | Path | onnx.ModelProto,
    original: str | Path | onnx.ModelProto | Loaded,
    samples: Samples | None = None,
    profile: AcceleratorProfile | None = None,
    threads: int | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    everywhere: bool = False,
    most_different: float | None = None,
    judged: bool = False,
    on_event: Listener = silent,
) -> VerifyReport:
    """Check `compressed` against `original`; failed checks are in the report, they do not raise.

    Args:
        compressed: the file to check.
        original: the model it was made from.
        samples: inputs to compare on; random ones when None.
        profile: accelerator on which both are costed again from their files.
        threads: ONNX Runtime threads.
        input_shapes: sizes of dynamic inputs.
        everywhere: try OpenVINO, qonnx and TensorRT's rules on the file whatever its dialect.
        most_different: the largest root-mean-square difference of the outputs that passes, as a share of the original's (0.05
            is 5 %); needs `samples`, since random inputs say little of real ones.
        judged: a metric has decided that the outputs are near enough, so no check asks it.
        on_event: hears how many mappings are found for the energies, where that takes long.

    Raises:
        ModelError: one of the two cannot be read as a model.
        UsageError: the two are exchanged.
        DataError: the samples do not fit the inputs.
        UsageError: `most_different` without samples, or not above zero.
    """
    if most_different is not None and (samples is None or not most_different > 0):
        raise UsageError(
            "max_difference: "
            + (
                f"{most_different:g}; give a share above zero, such as 5%"
                if samples is not None
                else "outputs are compared on samples of the user's; give some with --data"
            )
        )
    ours = load_model(compressed)
    theirs = original if isinstance(original, Loaded) else load_model(original)
    if not isinstance(original, Loaded) and declared(ours.proto, "input") != declared(theirs.proto, "input"):
        settle_open_sizes(theirs.proto)  # as `compress` and `apply` do, which write the size that they found
    if _named_source(theirs.proto) is not None and _named_source(ours.proto) is None:
        raise UsageError(
            "verify: the model given as the original is itself a file written by hwc-onnx, and the other is not; give the compressed file "
            "first and the original after --against"
        )
    input_shapes = input_shapes or sizes_of(ours.proto, theirs.proto)
    obstacle = obstacle_to_running(ours.proto) or other_inputs(ours.proto, theirs.proto)
    used = None if obstacle is not None else samples or _random_samples(theirs.proto, input_shapes)
    checks = [
        declarations(ours.proto, theirs.proto, "input"),
        declarations(ours.proto, theirs.proto, "output"),
        _foreign_metadata(ours.proto, theirs.proto),
        _declared_widths(ours.proto),
        _source(ours.proto, theirs),
    ]
    levels: tuple[LevelResult, ...] = ()
    agreement: float | None = None
    error = float("inf")
    file = _as_written(compressed, ours)
    capabilities: tuple[Capability, ...] = ()
    if used is None:
        checks.append(Check("not run", True, str(obstacle)))
        if most_different is not None:
            checks.append(Check("outputs near the original's", False, "not compared, since nothing could be run"))
    else:
        levels, reference, agreement, error, least, found = _run_checks(ours, theirs.proto, used, threads)
        checks += found
        if samples is not None and agreement is None and least is not None and not judged:
            said = f"the nearest output differs by {100 * least:.2g} % (root mean square); zeros alone would by 100 %"
            checks.append(Check("outputs follow the original's", least < 1.0, said))
        if most_different is not None:
            said = f"outputs differ by {100 * error:.2g} % (root mean square); at most {100 * most_different:g} % is allowed"
            checks.append(Check("outputs near the original's", error <= most_different, said))
        capabilities = _capabilities(file, ours, levels, used, reference, threads, everywhere)
        mine = dialect_check(file, capabilities)
        checks += [] if mine is None else [mine]
    logical = read_qdq(ours.proto)
    cost, float_cost = _costs(ours.proto, theirs.proto, profile, input_shapes, on_event)
    return VerifyReport(
        checks=tuple(checks),
        levels=levels,
        agreement=agreement,
        relative_error=error,
        n_samples=0 if used is None else len(used),
        real_samples=used is not None and samples is not None,
        file_bytes=ours.file_bytes,
        original_bytes=theirs.file_bytes,
        weight_bits=_tally(logical.weight_bits),
        activation_bits=_tally(logical.activation_bits),
        weight_density=_mean_density(logical.proto, logical.weight_density),
        cost=cost,
        float_cost=float_cost,
        cpu_features=cpu_features(),
        dialect=dialect_of(file),
        capabilities=capabilities,
    )


def _as_written(compressed: str | Path | onnx.ModelProto, ours: Loaded) -> onnx.ModelProto:
    """The model as it stands in the file: with the Quant nodes that loading has replaced."""
    if not ours.quant_nodes:
        return ours.proto
    return compressed if isinstance(compressed, onnx.ModelProto) else onnx.load(compressed)


def _capabilities(
    file: onnx.ModelProto,
    ours: Loaded,
    levels: tuple[LevelResult, ...],
    samples: Samples,
    reference: Mapping[str, np.ndarray] | None,
    threads: int | None,
    everywhere: bool,
) -> tuple[Capability, ...]:
    """ONNX Runtime's levels, and the runtime of the file's dialect, or all of them."""
    dialect, rows = dialect_of(file), list(onnxruntime_rows(levels, ours.quant_nodes > 0))
    if reference is not None:
        if everywhere:
            rows += openvino_rows(file, ours.proto, samples, reference, threads)
        elif dialect == "openvino":
            rows += openvino_rows(file, ours.proto, samples, reference, threads, ("float32",))
        if everywhere or dialect == "qonnx":
            rows.append(qonnx_row(file, ours.proto, samples, reference, threads))
    if everywhere or dialect == "tensorrt":
        rows += tensorrt_rows(file)
    return tuple(rows)


def _run_checks(
    loaded: Loaded, theirs: onnx.ModelProto, samples: Samples, threads: int | None
) -> tuple[tuple[LevelResult, ...], Mapping[str, np.ndarray] | None, float | None, float, float | None, list[Check]]:
    """The levels, the outputs, agreement with the original, relative error of the outputs, the least of any float output, and the checks that take runs."""
    ours = loaded.proto
    levels, reference = run_levels(ours, samples, threads)
    failed = [result for result in levels if not result.opens]
    opens = "; ".join(f"{result.level}: {result.message}" for result in failed) or ", ".join(LEVELS)
    if loaded.quant_nodes:
        opens += f" ({loaded.quant_nodes} Quant nodes read as QuantizeLinear, Clip and DequantizeLinear)"
    checks = [
        Check("opens at all levels", not failed, opens),
        levels_agree(levels, len(samples), lambda: sensitivity(ours, samples, threads)),
    ]
    if reference is None:
        return levels, None, None, float("inf"), None, checks
    expected = run(open_session(theirs, threads, "all"), samples)
    finite = all(is_finite(value) for value in reference.values())
    checks.append(Check("outputs are finite", finite, "all finite" if finite else "NaN or infinity in the outputs"))
    answers = any(has_answers(value) for value in expected.values())
    agreement = same_largest(expected, reference) if answers else None
    floats = [name for name, values in expected.items() if values.dtype.kind == "f" and name in reference]
    least = min((relative_error({name: expected[name]}, {name: reference[name]}) for name in floats), default=None)
    return levels, reference, agreement, relative_error(expected, reference), least, checks


def _foreign_metadata(ours: onnx.ModelProto, theirs: onnx.ModelProto) -> Check:
    kept = {entry.key: entry.value for entry in ours.metadata_props}
    lost = [
        entry.key
        for entry in theirs.metadata_props
        if not entry.key.startswith(PREFIX) and kept.get(entry.key) != entry.value
    ]
    return Check("foreign metadata kept", not lost, f"lost or changed: {', '.join(lost)}" if lost else "kept")


def _declared_widths(proto: onnx.ModelProto) -> Check:
    """Every width in `hwc.bits` belongs to a weight of the file whose integers fit it."""
    logical = read_qdq(proto)
    text = next((entry.value for entry in proto.metadata_props if entry.key == BITS_KEY), "{}")
    try:
        declared = json.loads(text)
    except json.JSONDecodeError:
        declared = None
    if not isinstance(declared, dict):
        return Check("declared widths hold", False, f"metadata '{BITS_KEY}' is not a JSON object")
    wrong = [name for name, bits in declared.items() if logical.weight_bits.get(name) != bits]
    if wrong:
        found = ", ".join(
            f"{name}: declared {declared[name]}, stored {logical.weight_bits.get(name)}" for name in wrong[:3]
        )
        return Check("declared widths hold", False, found)
    if not declared:
        return Check("declared widths hold", True, "no weight is declared narrower than it is stored")
    return Check("declared widths hold", True, f"{len(declared)} declared, all integers fit")


def _named_source(proto: onnx.ModelProto) -> str | None:
    """The digest of the model that a file says it was made from."""
    return next((entry.value for entry in proto.metadata_props if entry.key == SOURCE_KEY), None)


def _source(ours: onnx.ModelProto, theirs: Loaded) -> Check:
    named = _named_source(ours)
    if named is None:
        return Check("made from this original", True, "not checked: the file does not name its source")
    good = named == theirs.digest
    found = f"{named[:12]}…" if good else f"the file names {named[:12]}…, the original is {theirs.digest[:12]}…"
    return Check("made from this original", good, found)


def _random_samples(proto: onnx.ModelProto, wanted: Mapping[str, Sequence[int]] | None) -> Samples:
    """Standard normal inputs, drawn with a fixed seed."""
    shapes = input_shapes_of(proto, wanted, RANDOM_SAMPLES)
    specs = {spec.name: spec for spec in input_specs(proto)}
    one = any(spec.whole for spec in specs.values())
    count = RANDOM_SAMPLES if one else min((shape[0] for shape in shapes.values() if shape), default=1)
    # the batch may stand behind another axis, as in the state of a recurrent layer
    shapes = input_shapes_of(proto, wanted, 1 if one else count)
    feeds = random_feeds(
        proto, {name: (count, *(shape if specs[name].whole else shape[1:])) for name, shape in shapes.items()}
    )
    return Samples({name: np.asarray(values) for name, values in feeds.items()}, None)


def _tally(bits: Mapping[str, int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for width in sorted(bits.values()):
        counts[width] = counts.get(width, 0) + 1
    return counts


def _mean_density(proto: onnx.ModelProto, density: Mapping[str, float]) -> float:
    """Share of weights that are not zero over all quantized layers (1.0 when there are none)."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in proto.graph.initializer if tensor.name in density}
    total = sum(sizes.values())
    return sum(density[name] * size for name, size in sizes.items()) / total if total else 1.0


def _costs(
    ours: onnx.ModelProto,
    theirs: onnx.ModelProto,
    profile: AcceleratorProfile | None,
    wanted: Mapping[str, Sequence[int]] | None,
    on_event: Listener,
) -> tuple[ModelCost | None, ModelCost | None]:
    """Energy of the file as it stands, and of the original in float, on `profile`; both with the shares of zero activations
    that the file records.
    """
    if profile is None:
        return None, None
    from hwc_onnx.cost.model import CostModel
    from hwc_onnx.graph.parse import parse, with_densities
    from hwc_onnx.normalize.pipeline import normalize

    model, graph = CostModel(profile, on_event=on_event), parse(ours, wanted)
    recorded = {name: graph.tensors[name].density for group in graph.activation_groups for name in group.tensors}
    original = with_densities(parse(normalize(theirs, wanted), wanted), recorded)
    return model.cost(graph), model.float_cost(original)
