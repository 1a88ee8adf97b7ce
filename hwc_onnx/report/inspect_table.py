"""Tables of `inspect`: what was read, and which channels can be removed."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from hwc_onnx.report.console import table
from hwc_onnx.report.quantities import count, percent


def inspect_tables(payload: dict[str, Any]) -> list[RenderableType]:
    """Summary line, layers, channel groups, activation groups and unmodelled nodes."""
    inputs = ", ".join(f"{item['name']} {item['shape']}" for item in payload["inputs"])
    shown: list[RenderableType] = [
        f"{payload['node_count']} nodes, {len(payload['layers'])} layers, {count(payload['macs'])} MACs, "
        f"{count(payload['params'])} weights, opset {payload['opset']}; input {inputs}",
        _prunable(payload),
        "",
    ]
    layers = table("Layers", "layer", "op", "weight", "MACs", "weights", left=3)
    for layer in payload["layers"]:
        shape = "x".join(str(n) for n in layer["weight_shape"]) or "two activations"
        layers.add_row(layer["key"], layer["op_type"], shape, count(layer["macs"]), count(layer["params"]))
    shown.append(layers)
    groups = table("\nChannel groups", "group", "channels", "made by", "read by", "weights", "energy")
    for group in payload["groups"]:
        share = group["prunable"]
        groups.add_row(
            group["id"],
            f"{group['channels']}{' locked' if group['locked_because'] else ''}",
            str(len(group["producers"])),
            str(len(group["consumers"])),
            *("-" if group["locked_because"] or part is None else percent(part) for part in (share["params"], share["energy"])),
        )
    shown.append(groups)
    shown += [f"locked: {group['locked_because']}" for group in payload["groups"] if group["locked_because"]]
    stored = table("\nActivation groups", "stored tensor", "tensors", "layers that read it")
    for group in payload["activation_groups"]:
        stored.add_row(group["id"], str(len(group["tensors"])), str(len(group["readers"])))
    shown.append(stored)
    if payload["unmodelled"]:
        unmodelled = table("\nUnmodelled nodes", "node", "reason", left=2)
        for item in payload["unmodelled"]:
            unmodelled.add_row(item["key"], item["reason"])
        shown.append(unmodelled)
    return shown


def _prunable(payload: dict[str, Any]) -> str:
    share = payload["prunable"]
    cost = "" if share["energy"] is None else f", {percent(share['energy'])} of the energy on {payload['accelerator']}"
    return f"channels can leave {percent(share['params'])} of the weights, {percent(share['macs'])} of the MACs{cost}"
