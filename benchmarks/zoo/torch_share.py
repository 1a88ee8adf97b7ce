"""The share of a module's weights that torch-pruning can prune structurally; the definition is in README.md."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from typing import Any

import torch
import torch_pruning as tp
from attention import Attention, GroupedQueryAttention
from torch import Tensor, nn

WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear, nn.MultiheadAttention)
RATIO = 0.3
CHECK_SECONDS = 40.0
Inputs = tuple[Tensor, ...]


def torch_pruning_share(module: nn.Module, inputs: Inputs) -> dict[str, Any]:
    """`claimed`: from the dependency graph; `share`: without the groups after whose pruning the module does not run."""
    graph = tp.DependencyGraph().build_dependency(module, example_inputs=inputs, verbose=False)
    layers = [part for part in graph.module2node if isinstance(part, WEIGHTED)]
    last = _last_layers(graph)
    groups = list(graph.get_all_groups(ignored_layers=last, root_module_types=list(WEIGHTED)))
    names = {part: name for name, part in module.named_modules()}
    roots = [names[group[0].dep.target.module] for group in groups]
    total = sum(weight.numel() for layer in layers for weight in _weights(layer))
    broken, checked = _broken_roots(module, inputs, [names[layer] for layer in last], roots)
    kept = [group for group, root in zip(groups, roots, strict=True) if root not in broken]
    return {
        "parameters": sum(value.numel() for value in module.parameters()),
        "weights": total,
        "claimed": _touched(graph, groups, layers) / total,
        "share": _touched(graph, kept, layers) / total,
        "groups": len(groups),
        "broken_groups": sorted(broken),
        "all_checked": checked,
    }


def _weights(layer: nn.Module) -> list[Tensor]:
    if isinstance(layer, nn.MultiheadAttention):
        return [layer.in_proj_weight, layer.out_proj.weight]
    return [layer.weight]


def _last_layers(graph: tp.DependencyGraph) -> list[nn.Module]:
    """Weighted layers whose result reaches an output with no other one in between: users leave them out."""
    waiting = [node for node in graph.module2node.values() if not node.outputs]
    seen, found = set(waiting), []
    while waiting:
        node = waiting.pop()
        if isinstance(node.module, WEIGHTED):
            found.append(node.module)
            continue
        fresh = [source for source in node.inputs if source not in seen]
        seen.update(fresh)
        waiting += fresh
    return found


def _touched(graph: tp.DependencyGraph, groups: Iterable[Any], layers: list[nn.Module]) -> int:
    """Weights of `layers` on an output or input channel of a group that can lose some channels but not all."""
    marks = {layer: [torch.zeros_like(weight, dtype=torch.bool) for weight in _weights(layer)] for layer in layers}
    for group in groups:
        if len(group[0].idxs) < 2:
            continue
        for dep, positions in group:
            layer = dep.target.module
            if layer not in marks:
                continue
            if isinstance(layer, nn.MultiheadAttention):
                for mark in marks[layer]:
                    mark[:] = True
                continue
            (mark,) = marks[layer]
            if getattr(layer, "groups", 1) > 1:  # whole groups go, or equally many channels of each
                mark[:] = True
                continue
            transposed = bool(getattr(layer, "transposed", False))
            axis = int(graph.is_out_channel_pruning_fn(dep.handler) == transposed)
            # it can name positions that do not exist
            mark.movedim(axis, 0)[[place for place in positions if place < mark.shape[axis]]] = True
    return sum(int(mark.sum()) for found in marks.values() for mark in found)


def _broken_roots(module: nn.Module, inputs: Inputs, last: list[str], roots: list[str]) -> tuple[set[str], bool]:
    """Groups that, pruned by 30 %, leave a module that fails or returns other shapes; found by halving."""
    with torch.no_grad():
        wanted = _shapes(module(*inputs))
    deadline = time.monotonic() + CHECK_SECONDS

    def others(part: list[str]) -> set[str]:
        return set(roots) - set(part)

    def broken(part: list[str]) -> set[str]:
        if not part or time.monotonic() > deadline or _runs(module, inputs, [*last, *others(part)], wanted):
            return set()
        if len(part) == 1:
            return set(part)
        half = len(part) // 2
        return broken(part[:half]) | broken(part[half:])

    found = broken(roots)
    return found, time.monotonic() < deadline


def _runs(module: nn.Module, inputs: Inputs, ignored: list[str], wanted: list[Any]) -> bool:
    clone = copy.deepcopy(module)
    parts = dict(clone.named_modules())
    try:
        pruner = tp.pruner.BasePruner(
            clone,
            inputs,
            tp.importance.MagnitudeImportance(),
            pruning_ratio=RATIO,
            ignored_layers=[parts[name] for name in ignored],
            root_module_types=list(WEIGHTED),
            num_heads=_heads(clone),
            # its defaults are shared between pruners
            in_channel_groups={},
            out_channel_groups={},
            channel_groups={},
        )
        pruner.step()
        with torch.no_grad():
            return _shapes(clone(*inputs)) == wanted
    except Exception:  # whatever it raises, the group cannot be pruned
        return False


def _heads(module: nn.Module) -> dict[nn.Module, int]:
    """Layers whose output channels are divided into attention heads, as users have to state them."""
    found = {part: part.num_heads for part in module.modules() if isinstance(part, nn.MultiheadAttention)}
    for part in module.modules():
        if isinstance(part, Attention):
            found[part.qkv] = part.heads
        if isinstance(part, GroupedQueryAttention):
            found |= {part.q: part.heads, part.k: part.shared, part.v: part.shared}
    return found


def _shapes(value: Any) -> list[Any]:
    if isinstance(value, Tensor):
        return [tuple(value.shape)]
    return [shape for item in value for shape in _shapes(item)] if isinstance(value, list | tuple) else []
