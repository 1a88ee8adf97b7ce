"""The compression plan: what each layer becomes, and everything needed to rebuild it byte for byte."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from hwc_onnx.errors import PlanError
from hwc_onnx.graph.constraints import NO_CONSTRAINTS, Constraints
from hwc_onnx.graph.layer_graph import FLOAT_BITS, MOST_REMOVED, ActivationGroup, ChannelGroup, Layer, LayerGraph
from hwc_onnx.graph.pruned import is_coarse, pattern_for, pattern_of
from hwc_onnx.graph.selection import selected
from hwc_onnx.graph.variant import Setting, variant
from hwc_onnx.graph.zero_pattern import Blocks, Pattern, share_of
from hwc_onnx.plugins import nearest

Bits = Annotated[int, Field(ge=2, le=16)]


class LayerConfig(BaseModel):
    """One layer's setting.

    `ratio` is the share removed (0..0.95): of the weights for a fine-grained algorithm, of the output channels of the
    layer's channel group for a coarse-grained one. Bits are 2..8; 16 leaves the operand as it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    algorithm: str = "none"
    ratio: Annotated[float, Field(ge=0.0, le=MOST_REMOVED)] = 0.0
    weight_bits: Bits = 8
    activation_bits: Bits = 8


Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class Achieved(BaseModel):
    """What a layer's setting came to once rewritten: shares in 0..1, channels kept (None: no coarse pruning).

    `block_density` is the share of weights in blocks that hold one which is not zero (None, and not written: the algorithm prunes no
    blocks).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: Share = 0.0
    weight_density: Share = 1.0
    kept_channels: int | None = None
    block_density: Share | None = None

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = write(self)
        return {name: value for name, value in found.items() if name != "block_density" or value is not None}


RECOVERIES = ("none", "ranges", "full", "sequential")
"""How weights are fitted: rounded only, with fitted ranges, each layer by itself, each layer after those before it."""

REPAIRS = ("equalize", "attention", "absorb", "bias", "statistics", "normalizations")
"""Made with recovery "full" and "sequential": channels scaled across layers to use their quantizers alike, those of queries,
keys and values too, channels moved into the biases behind them, the mean of what a layer gets wrong taken up by its bias,
channel statistics mended across layers, and those of BatchNormalizations that are no part of a layer."""

MENDED = frozenset({"statistics", "normalizations"})
"""Repairs of a stitched plan, made in one run of the compressed network (hwc_onnx/statistics_repair.py)."""

RANGES = ("minmax", "percentile", "mse", "entropy")
"""How the range of an activation is chosen (hwc_onnx/quantization/ranges.py)."""


class CalibrationRecord(BaseModel):
    """Which samples the plan was built from, so that another data set is noticed and as many calibrate again.

    `digest` covers the source and which of its samples calibrate, not those that a search measures on.
    `source` is its name without folders, so that the same data elsewhere gives the same plan. `recovery` is one of
    `RECOVERIES`, `ranges` one of `RANGES`, `repairs` are of `REPAIRS`. `power_of_two` says that all scales are such powers,
    `polish` that layers of few bits are rounded anew (hwc_onnx/polish.py).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = "none"
    samples: int = 0
    split_seed: int = 0
    digest: str = ""
    ranges: Annotated[str, Field(pattern=f"^({'|'.join(RANGES)})$")] = "mse"
    recovery: Annotated[str, Field(pattern=f"^({'|'.join(RECOVERIES)})$")] = "full"
    repairs: tuple[Annotated[str, Field(pattern=f"^({'|'.join(REPAIRS)})$")], ...] = REPAIRS
    power_of_two: bool = False
    polish: bool = False


class CompressionPlan(BaseModel):
    """A setting for every layer (keyed by the layer's first output tensor) and its provenance.

    `achieved` and `activation_density` are facts recorded when the plan was built; an empty mapping means that the
    plan has not been built yet. `granularity` of channel removal is `lanes` channels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_version: Annotated[Literal[1], Field(alias="schema")] = 1
    source_digest: str = ""
    layers: dict[str, LayerConfig]
    achieved: dict[str, Achieved] = {}
    activation_density: dict[str, Share] = {}
    calibration: CalibrationRecord = CalibrationRecord()
    dialect: str = "ort"
    lanes: Annotated[int, Field(ge=1)] = 1
    first_last: Literal["keep", "free"] = "keep"
    portable: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    constraints: Constraints = NO_CONSTRAINTS
    preprocess: dict[str, object] = {}
    code_version: str = ""

    def to_json(self) -> str:
        """Canonical text: sorted keys, fixed indentation, so that equal plans are equal bytes."""
        return json.dumps(self.model_dump(by_alias=True, mode="json"), sort_keys=True, indent=1) + "\n"

    def digest(self) -> str:
        """SHA-256 of the canonical text."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def settings_digest(self) -> str:
        """SHA-256 of what each layer is to become, whatever was recorded besides."""
        settings = {key: config.model_dump() for key, config in self.layers.items()}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    @classmethod
    def uniform(cls, keys: Mapping[str, object] | tuple[str, ...] | list[str], config: LayerConfig) -> CompressionPlan:
        """The same setting for every layer key."""
        return cls(layers={key: config for key in keys})

    @classmethod
    def from_json(cls, text: str, where: str = "plan") -> CompressionPlan:
        """Parse and validate.

        Raises:
            PlanError: not JSON, an unknown field, or a value out of range; the message names the field.
        """
        try:
            return cls.model_validate(json.loads(text))
        except json.JSONDecodeError as error:
            raise PlanError(
                f"{where}: not JSON (line {error.lineno}: {error.msg}); expected a plan.json of schema 1"
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            path = ".".join(str(part) for part in first["loc"])
            raise PlanError(
                f"{where}: field '{path}': {first['msg']}; see docs/files.md for the plan schema"
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> CompressionPlan:
        """Read a plan file (PlanError if it cannot be read)."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PlanError(
                f"{path}: cannot be read as text ({error}); expected a plan.json written by hwc-onnx"
            ) from error
        return cls.from_json(text, str(path))


STORED_BITS = 8
"""Width of a stored tensor that no layer reads, in a model where some layer's input is quantized."""


def zeros_of(plan: CompressionPlan, key: str) -> Pattern | None:
    """The pattern of a layer's zeros, with the share of weights in filled blocks that the plan records."""
    config, record = plan.layers[key], plan.achieved.get(key)
    found = pattern_for(config.algorithm, config.ratio)
    if isinstance(found, Blocks) and record is not None and record.block_density is not None:
        return found._replace(share=record.block_density)
    return found


def kept_count(channels: int, ratio: float, lanes: int = 1) -> int:
    """Channels left of `channels` when the share `ratio` is removed, in whole multiples of `lanes`, never zero."""
    wanted = math.floor(channels * (1.0 - ratio) / lanes + 0.5) * lanes
    return min(channels, max(wanted, lanes, 1))


def kept_of(group: ChannelGroup, ratio: float, lanes: int = 1) -> int:
    """Channels left of a group when the share `ratio` is removed, in whole multiples of `lanes`.

    Each of its parts keeps at least one, and the group its floor.
    """
    least = math.ceil(group.least_kept() / lanes) * lanes
    return min(group.channels, max(kept_count(group.channels, ratio, lanes), least))


def width_fields(layer: Layer, group: ActivationGroup) -> tuple[str, ...]:
    """The fields of the layer's `LayerConfig` that state the width of `group`.

    A layer with weights reads its input at `activation_bits`. A product of two activations reads its first operand at
    `activation_bits` and its second at `weight_bits`.
    """
    if layer.weight is not None:
        return ("activation_bits",)
    names = ("activation_bits", "weight_bits")
    return tuple(field for field, tensor in zip(names, layer.inputs, strict=False) if tensor in group.tensors)


def group_bits(graph: LayerGraph, plan: CompressionPlan) -> tuple[int, ...]:
    """The width of every activation group under `plan`, in the graph's order.

    Raises:
        PlanError: two layers that read one tensor ask for different widths (both are named).
    """
    quantized = any(config.activation_bits < FLOAT_BITS for config in plan.layers.values())
    widths = []
    for group, fields in _fields(graph):
        found: dict[int, str] = {}
        for key, field in fields:
            found.setdefault(getattr(_config(plan, key), field), key)
        if len(found) > 1:
            (first, one), (second, other) = list(found.items())[:2]
            raise PlanError(
                f"plan: layers '{one}' ({first} bits) and '{other}' ({second} bits) both read tensor '{group.tensor}', "
                "which is stored once; give them the same width"
            )
        widths.append(next(iter(found), STORED_BITS if quantized else FLOAT_BITS))
    return tuple(widths)


def channel_choice(plan: CompressionPlan, group: ChannelGroup) -> int | None:
    """How many channels `group` keeps under `plan`; None when it loses none.

    Raises:
        PlanError: the group is locked, or its producing layers disagree (both are named).
    """
    configs = [(key, _config(plan, key)) for key in group.producers]
    if not any(is_coarse(config.algorithm) for _, config in configs):
        return None
    first_key, first = configs[0]
    for key, config in configs[1:]:
        if (config.algorithm, config.ratio) != (first.algorithm, first.ratio):
            raise PlanError(
                f"plan: layers '{first_key}' ({first.algorithm} {first.ratio:g}) and '{key}' ({config.algorithm} "
                f"{config.ratio:g}) must lose the same channels; give all of {', '.join(group.producers)} the same setting"
            )
    if group.locked_because is not None:
        if first.ratio == 0.0:
            return None
        raise PlanError(
            f"plan: layer '{first_key}' cannot lose channels with '{first.algorithm}': {group.locked_because}; "
            "use a fine-grained algorithm or none"
        )
    for key, _ in configs:
        record = plan.achieved.get(key)
        if record is not None and record.kept_channels is not None:
            return max(record.kept_channels, group.floor)
    return kept_of(group, first.ratio, plan.lanes)


def with_plan(graph: LayerGraph, plan: CompressionPlan) -> LayerGraph:
    """The layer graph that the plan turns `graph` into: widths, densities, shapes and loop dimensions.

    Uses the facts that the plan records (`achieved`, `activation_density`). Where it has none, fine-grained pruning is
    taken to leave the share 1 - ratio of the weights that are not zero now.

    Raises:
        PlanError: the plan does not fit the graph.
    """
    weight_bits: dict[str, int] = {}
    weight_density: dict[str, float] = {}
    patterns: dict[str, Pattern] = {}
    algorithms: dict[str, str] = {}
    for layer in graph.layers:
        config = _config(plan, layer.key)
        algorithms[layer.key] = config.algorithm
        if layer.weight is None:
            continue
        weight_bits[layer.key] = config.weight_bits
        pattern = zeros_of(plan, layer.key)
        if pattern is not None:
            patterns[layer.key] = pattern
        record = plan.achieved.get(layer.key)
        if record is not None:
            weight_density[layer.key] = record.weight_density
        elif config.algorithm != "none" and not is_coarse(config.algorithm):
            left = 1.0 - config.ratio if pattern is None else share_of(pattern, layer.loop_dims.C)
            weight_density[layer.key] = min(layer.weight_density, left)
    kept = {}
    for group in graph.channel_groups:
        count = channel_choice(plan, group)
        if count is not None:
            kept[group.root] = count
    setting = Setting(
        weight_bits, weight_density, group_bits(graph, plan), plan.activation_density, kept, patterns, algorithms
    )
    return variant(graph, setting)


def check_plan(graph: LayerGraph, plan: CompressionPlan) -> None:
    """Check that a plan names exactly the graph's layers and that its settings can be carried out.

    Raises:
        PlanError: a layer is missing or unknown, a product of two activations is to be pruned, layers disagree about a
            shared tensor or shared channels, channels of a locked group are to be removed, or a record is impossible.
    """
    known = [layer.key for layer in graph.layers]
    names = set(known)
    for key in plan.layers:
        if key not in names:
            raise PlanError(
                f"plan: layer '{key}' is not in the model{nearest(key, known)}; `hwc-onnx inspect` lists its layers"
            )
    for layer in graph.layers:
        config = _config(plan, layer.key)
        if layer.weight is None and config.algorithm != "none":
            raise PlanError(
                f"plan: layer '{layer.key}' multiplies two activations and has no weights, so algorithm "
                f"'{config.algorithm}' has nothing to prune; use 'none'"
            )
    group_bits(graph, plan)
    for group in graph.channel_groups:
        count = channel_choice(plan, group)
        if count is not None and not group.least_kept() <= count <= group.channels:
            raise PlanError(
                f"plan: layer '{group.root}' is said to keep {count} channels, but it has {group.channels}; "
                f"between {group.least_kept()} and {group.channels} can be kept"
            )


def check_ratios(graph: LayerGraph, plan: CompressionPlan) -> None:
    """Check that a plan keeps the bounds which its constraints give to the layers of `graph` that it may compress.

    Raises:
        PlanError: a ratio is outside; all such layers are counted, the first is named.
    """
    if all(layer.ratio_bounds == (0.0, MOST_REMOVED) for layer in graph.layers):
        return
    free = selected(graph, plan.include, plan.exclude)
    broken = []
    for layer in graph.layers:
        low, high = layer.ratio_bounds
        ratio = _removed(_config(plan, layer.key))
        if layer.weight is not None and layer.key in free and not low - 1e-9 <= ratio <= high + 1e-9:
            group = graph.group_of(layer.key)
            why = f" ({group.locked_because})" if group is not None and group.locked_because is not None else ""
            broken.append(f"layer '{layer.key}' has ratio {ratio:g}, and its bounds are {low:g} to {high:g}{why}")
    if broken:
        more = f", and {len(broken) - 1} more are outside theirs" if len(broken) > 1 else ""
        raise PlanError(f"plan: {broken[0]}{more}; change the ratios, or the bounds (constraints.ratios)")


def _removed(config: LayerConfig) -> float:
    pattern = pattern_of(config.algorithm)
    if pattern is not None:
        return 1.0 - pattern[0] / pattern[1]
    return 0.0 if config.algorithm == "none" else config.ratio


def _config(plan: CompressionPlan, key: str) -> LayerConfig:
    found = plan.layers.get(key)
    if found is None:
        raise PlanError(
            f"plan: layer '{key}' has no setting; every layer of the model needs one (algorithm 'none' keeps it)"
        )
    return found


def _fields(graph: LayerGraph) -> list[tuple[ActivationGroup, list[tuple[str, str]]]]:
    """For every activation group the (layer key, field) pairs that state its width; worked out once per graph."""
    found: list[tuple[ActivationGroup, list[tuple[str, str]]]] | None = graph.__dict__.get("_width_fields")
    if found is None:
        found = [
            (group, [(key, field) for key in group.readers for field in width_fields(graph.layer(key), group)])
            for group in graph.activation_groups
        ]
        graph.__dict__["_width_fields"] = found
    return found
