"""ONNX Runtime's Attention and MultiHeadAttention become projections, products and Softmax.

    Attention            q, k, v = split(x W + b), W [C, 3 H D], then heads as in `heads.py`
    MultiHeadAttention   q, k, v given as [N, S, H D], with one bias for all three

Hidden keys get `mask_filter_value` (-10000 unless said) added to their scores. Masks are written out as they come from
exported encoders: which keys count [N, T], how many keys count [N] (Attention), which keys count for each query [N, S, T].
Past keys, rotary positions, packed operands and other masks stay as they are. Source:
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from hwc_onnx.graph.infer import Shapes
from hwc_onnx.graph.model_view import ModelView, attributes
from hwc_onnx.normalize.heads import KEY_ORDER, Heads, attend, causal, constant_bias, join_heads, split_heads
from hwc_onnx.normalize.writing import Writer

PARTS = ("q", "k", "v")


def attention(writer: Writer, node: onnx.NodeProto, view: ModelView, shapes: Shapes) -> bool:
    """Write com.microsoft Attention anew; False for a form that stays."""
    x, _, _, mask, past, added, length = (*node.input, *[""] * 7)[:7]
    facts = attributes(node)
    weight, bias = view.constant(node, 1), view.constant(node, 2)
    absent = any((past, length, *node.output[1:], facts.get("do_rotary", 0), facts.get("rotary_embedding_dim", 0)))
    if absent or weight is None or (bias is None and len(node.input) > 2 and node.input[2]) or x not in shapes:
        return False
    batch, queries, _ = shapes[x][0]
    if mask and (mask not in shapes or shapes[mask][0] not in ((batch,), (batch, queries), (batch, queries, queries))):
        return False
    third = weight.shape[1] // 3
    ends = np.cumsum(facts.get("qkv_hidden_sizes", (third,) * 3))[:2]
    parts = []
    for place, values in enumerate(np.split(weight, ends, axis=1)):
        part = writer.node("MatMul", [x, writer.constant(np.ascontiguousarray(values), PARTS[place])], f"{PARTS[place]}_product")
        if bias is not None:
            shift = writer.constant(np.split(bias, ends)[place], f"{PARTS[place]}_bias")
            part = writer.node("Add", [part, shift], f"{PARTS[place]}_projected")
        parts.append(part)
    size = int(ends[0]) // int(facts["num_heads"])
    _attend(writer, node, parts, _masks(writer, mask, added, facts, shapes, (queries, queries)), facts, size)
    return True


def multi_head_attention(writer: Writer, node: onnx.NodeProto, view: ModelView, shapes: Shapes) -> bool:
    """Write com.microsoft MultiHeadAttention anew; False for a form that stays."""
    query, key, value, _, mask, added = (*node.input, *[""] * 6)[:6]
    facts = attributes(node)
    if any((*node.input[6:], *node.output[1:])) or any(len(shapes.get(n, ((),))[0]) != 3 for n in (query, key, value)):
        return False
    batch, queries, width = shapes[query][0]
    keys = shapes[key][0][1]
    bias = view.constant(node, 3)
    if (bias is None and len(node.input) > 3 and node.input[3]) or (mask and mask not in shapes):
        return False
    if mask and shapes[mask][0] not in ((batch, keys), (batch, queries, keys)):
        return False
    parts = [query, key, value]
    if bias is not None:
        shifts = np.split(bias, [width, 2 * width])
        parts = [
            writer.node("Add", [part, writer.constant(shift, f"{role}_bias")], f"{role}_projected")
            for role, part, shift in zip(PARTS, parts, shifts, strict=True)
        ]
    masks = _masks(writer, mask, added, facts, shapes, (queries, keys))
    _attend(writer, node, parts, masks, facts, width // int(facts["num_heads"]))
    return True


def _masks(
    writer: Writer, mask: str, added: str, facts: Mapping[str, Any], shapes: Shapes, sizes: tuple[int, int]
) -> str:
    """The sum of all that is added to the scores, [N, H, S, T] or what broadcasts to it; empty for nothing."""
    queries, keys = sizes
    found = [added] if added else []
    if mask:
        rank = len(shapes[mask][0])
        target = {1: [0, 1, 1, 1], 2: [0, 1, 1, keys], 3: [0, 1, queries, keys]}[rank]
        spread = writer.node("Reshape", [mask, writer.sizes(target, "mask_sizes")], "mask")
        if rank == 1:
            places = writer.constant(np.arange(keys, dtype=np.int32), "places")
            seen = writer.node("Less", [places, spread], "seen")
        else:
            seen = writer.node("Greater", [spread, writer.constant(np.asarray(0, np.int32), "nothing")], "seen")
        low = writer.number(facts.get("mask_filter_value", -10000.0), "low")
        found.append(writer.node("Where", [seen, writer.number(0.0, "zero"), low], "mask_bias"))
    if facts.get("unidirectional", 0):
        found.append(constant_bias(writer, causal(queries, keys)))
    total = found[0] if found else ""
    for other in found[1:]:
        total = writer.node("Add", [total, other], "bias")
    return total


def _attend(
    writer: Writer, node: onnx.NodeProto, parts: Sequence[str], bias: str, facts: Mapping[str, Any], size: int
) -> None:
    heads = int(facts["num_heads"])
    queries, values = (split_heads(writer, parts[place], heads, PARTS[place]) for place in (0, 2))
    keys = split_heads(writer, parts[1], heads, "k", KEY_ORDER)
    scale = float(facts.get("scale", 0.0)) or size**-0.5
    scores = attend(writer, Heads(queries, keys, values, scale, bias))
    join_heads(writer, scores.result, node.output[0])
