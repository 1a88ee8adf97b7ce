"""What is known of a search before it begins: too small an energy or file is asked for, or the budget is used up by its first plans."""

from __future__ import annotations

import onnx

from hwc_onnx.graph.layer_graph import MOST_REMOVED, LayerGraph
from hwc_onnx.job.rewards import CHANNELS, ZEROS, Rewards
from hwc_onnx.options import Options
from hwc_onnx.pruning.table import granularity
from hwc_onnx.search.seeds import Start, first_plans


def start_of(sampler: str) -> Start:
    """What a search by this sampler begins with."""
    return "cold" if sampler == "faithful" else "seeds"


def expectations(proto: onnx.ModelProto, graph: LayerGraph, options: Options, bounds: Rewards, accelerator: str) -> list[str]:
    """Warnings for the user before a search; none where nothing is known to stand in its way.

    Args:
        proto: the float model in normal form.
        graph: the same, constrained.
        options: of the run.
        bounds: what the accelerator rewards at most.
        accelerator: its name.
    """
    found = (bounds.warning(accelerator), _energy(graph, options, bounds, accelerator), _bytes(proto, options), _budget(options))
    return [text for text in found if text is not None]


def _energy(graph: LayerGraph, options: Options, bounds: Rewards, accelerator: str) -> str | None:
    """An energy limit below what is left at the extremes of all freedoms."""
    limit = options.limits.energy
    if limit is None or not bounds.single or limit >= bounds.least or not _extremes_hold(graph, options):
        return None
    return (
        f"--max-energy {100 * limit:.3g}%: with all that is searched at its extreme, accelerator {accelerator} still takes "
        f"{100 * bounds.least:.3g}% of the INT8 energy (activations taken as dense, accuracy not looked at), so expect that no plan "
        "keeps this limit; allow more energy, free more (--weight-bits, --activation-bits, --granularity, --include), or choose another "
        "--accel"
    )


def _extremes_hold(graph: LayerGraph, options: Options) -> bool:
    """Whether a search removes no more than the bounds assume: ratios that the user sets are taken as they are."""
    kinds = {granularity(name) for name in options.pruning}
    most = CHANNELS if "coarse" in kinds else ZEROS
    return all(low <= most and (high <= most or high >= MOST_REMOVED) for low, high in (layer.ratio_bounds for layer in graph.layers))


def _bytes(proto: onnx.ModelProto, options: Options) -> str | None:
    """A file limit below the nodes that every compressed file has."""
    limit, least = options.limits.bytes, node_bytes(proto)
    if limit is None or limit >= least:
        return None
    return (
        f"--max-bytes {limit:,.0f}: the nodes of this model take {least:,} bytes in a file whatever becomes of its weights, so no plan "
        "can keep this limit; allow a larger file"
    )


def node_bytes(proto: onnx.ModelProto) -> int:
    """Bytes that the nodes of a float model keep in a compressed file: without names of inputs, which become others."""
    return sum(node.ByteSize() - len(node.doc_string) - sum(len(name.encode()) + 2 for name in node.input) for node in proto.graph.node)


def _budget(options: Options) -> str | None:
    """So few trials that the strategy never proposes a plan."""
    first = first_plans(start_of(options.sampler))
    if options.trials > first:
        return None
    words = f"begins with {first} fixed plans" if first > 1 else "begins with the INT8 baseline"
    return (
        f"--trials {options.trials}: a search {words}, so this budget ends before {options.sampler} proposes any; give {first + 1} or "
        "more for a search, better 100"
    )
