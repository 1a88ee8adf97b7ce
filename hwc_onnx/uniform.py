"""One setting for every layer: "w4a8", "w4a8,fine=magnitude:0.5", "w8a8,coarse=l1:0.3".

What a layer cannot take is left out of its setting and said: channels of a locked group stay, a product of two
activations is only quantized, and the network's input and the last layer's input keep 8 bits unless told otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from hwc_onnx.errors import UsageError
from hwc_onnx.graph.constraints import NO_CONSTRAINTS, Constraints
from hwc_onnx.graph.layer_graph import MOST_REMOVED, ActivationGroup, Layer, LayerGraph
from hwc_onnx.graph.pruned import is_coarse, pattern_of
from hwc_onnx.graph.selection import selected
from hwc_onnx.plan import CompressionPlan, LayerConfig, width_fields
from hwc_onnx.plugins import nearest
from hwc_onnx.pruning.table import COARSE, FINE, granularity

SPEC = re.compile(
    r"w(?P<weight>\d+)a(?P<activation>\d+)(?:,(?P<kind>fine|coarse)=(?P<name>[\w.:]+?)(?::(?P<ratio>[\d.]+))?)?$"
)
KEEP_BITS = 8


def parse_spec(spec: str) -> LayerConfig:
    """The setting that a specification asks for.

    Raises:
        UsageError: it cannot be read, or a width, algorithm or ratio is out of range.
    """
    found = SPEC.match(spec.replace(" ", ""))
    if found is None:
        raise UsageError(
            f"uniform setting '{spec}': cannot be read; write w<bits>a<bits>, optionally with ,fine=<algorithm>:<ratio> or "
            ',coarse=<algorithm>:<ratio>, such as "w4a8" or "w4a8,fine=magnitude:0.5"'
        )
    widths = {side: int(found[side]) for side in ("weight", "activation")}
    for side, bits in widths.items():
        if not (2 <= bits <= 8 or bits == 16):
            raise UsageError(f"uniform setting '{spec}': {bits} {side} bits; allowed are 2 to 8, or 16 to leave them")
    if found["kind"] is None:
        return LayerConfig(weight_bits=widths["weight"], activation_bits=widths["activation"])
    table = FINE if found["kind"] == "fine" else COARSE
    name = found["name"]
    known, colon, rest = name.partition(":")
    if known in table and colon:
        raise UsageError(f"uniform setting '{spec}': ratio '{rest}' is no number; write {found['kind']}={known}:0.5 for one half")
    if (name not in table) if ":" not in name else granularity(name) != found["kind"]:
        raise UsageError(
            f"uniform setting '{spec}': no {found['kind']} algorithm '{name}'{nearest(name, list(table))}; "
            f"choose from {', '.join(table)}, or name your own as module:attribute"
        )
    pattern = pattern_of(name)
    if pattern is not None:
        ratio = 1 - pattern[0] / pattern[1]
    elif found["ratio"] is None:
        raise UsageError(f"uniform setting '{spec}': say how much to remove, such as {found['kind']}={name}:0.5")
    else:
        ratio = float(found["ratio"])
    if not 0 <= ratio <= MOST_REMOVED:
        raise UsageError(f"uniform setting '{spec}': ratio {ratio:g}; allowed is 0 to {MOST_REMOVED}, the share removed")
    return LayerConfig(algorithm=name, ratio=ratio, weight_bits=widths["weight"], activation_bits=widths["activation"])


def kept_groups(graph: LayerGraph) -> list[ActivationGroup]:
    """The activation groups that keep 8 bits by default: network inputs and what the last layers read.

    A last layer is one whose output reaches a graph output without passing another layer.
    """
    last = [layer for layer in graph.layers if layer.weight is not None and _is_last(graph, layer)]
    read = {tensor for layer in last for tensor in layer.inputs}
    return [g for g in graph.activation_groups if set(g.tensors) & (read | set(graph.inputs))]


def _is_last(graph: LayerGraph, layer: Layer) -> bool:
    """Whether a graph output depends on the layer with no other layer in between."""
    layers = {other.key for other in graph.layers if other.weight is not None}
    reached, outputs = set(layer.outputs), set(graph.outputs)
    for node in graph.nodes:
        if node.key not in layers and reached & set(node.inputs):
            reached |= set(node.outputs)
    return bool(reached & outputs)


def uniform(
    graph: LayerGraph,
    config: LayerConfig,
    *,
    first_last: str = "keep",
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    lanes: int = 1,
    constraints: Constraints = NO_CONSTRAINTS,
    note: Callable[[str], None] = lambda _: None,
) -> CompressionPlan:
    """`config` for every layer that can take it; `note` hears what was left out and why.

    A layer that `include`/`exclude` leaves out keeps 8 bits and is not pruned. The ratio of a layer is the nearest one within
    its bounds, which are those of `graph`; `constraints` are what set them, kept in the plan.
    """
    chosen = selected(graph, include, exclude)
    plain = config.model_copy(update={"algorithm": "none", "ratio": 0.0})
    layers = {layer.key: plain if layer.key in chosen else LayerConfig() for layer in graph.layers}
    if is_coarse(config.algorithm):
        for group in graph.channel_groups:
            if not group.producers:
                continue
            if group.locked_because is not None:
                note(f"channels of '{group.root}' stay: {group.locked_because}")
            elif set(group.producers) <= chosen:
                bounds = [graph.layer(key).ratio_bounds for key in group.producers]
                low, high = max(low for low, _ in bounds), min(high for _, high in bounds)
                layers.update(dict.fromkeys(group.producers, _within(config, low, high, group.root, note)))
    else:
        for layer in graph.layers:
            if layer.weight is not None and layer.key in chosen:
                layers[layer.key] = _within(config, *layer.ratio_bounds, layer.key, note)
    _same_widths(graph, layers, config, chosen, first_last)
    return CompressionPlan(
        source_digest=graph.source_digest,
        layers=layers,
        lanes=lanes,
        first_last="free" if first_last == "free" else "keep",
        include=include,
        exclude=exclude,
        constraints=constraints,
    )


def _within(config: LayerConfig, low: float, high: float, name: str, note: Callable[[str], None]) -> LayerConfig:
    """The setting with the ratio nearest to its own that the bounds allow; unpruned where that is none."""
    if config.algorithm == "none" or low <= config.ratio <= high:
        return config
    ratio = min(max(config.ratio, low), high)
    if ratio == 0.0 or pattern_of(config.algorithm) is not None:
        note(f"'{name}' is not pruned: ratio {config.ratio:g} is not within its bounds, {low:g} to {high:g}")
        return config.model_copy(update={"algorithm": "none", "ratio": 0.0})
    note(f"'{name}' gets ratio {ratio:g} instead of {config.ratio:g}: its bounds are {low:g} to {high:g}")
    return config.model_copy(update={"ratio": ratio})


def _same_widths(
    graph: LayerGraph, layers: dict[str, LayerConfig], config: LayerConfig, chosen: set[str], first_last: str
) -> None:
    """Give all readers of a stored tensor one width: the widest that any of them must keep."""
    kept = kept_groups(graph) if first_last == "keep" else []
    for group in graph.activation_groups:
        wide = group in kept or any(key not in chosen for key in group.readers)
        bits = max(config.activation_bits, KEEP_BITS) if wide else config.activation_bits
        for key in group.readers:
            update = {field: bits for field in width_fields(graph.layer(key), group)}
            layers[key] = layers[key].model_copy(update=update)
