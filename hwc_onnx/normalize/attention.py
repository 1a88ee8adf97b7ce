"""The standard operator Attention (opset 23 and later) becomes MatMul, Mul, Add, Softmax, MatMul around its heads.

Queries are [N, H, S, D] or [N, S, H D], keys and values likewise with their own number of heads, each of which serves
H / heads queries in turn. Masks become a bias: 0 where a key is attended, minus infinity where not; a query without any
key gets 0. Source: https://onnx.ai/onnx/operators/onnx__Attention.html with the semantics of onnx 1.23.

Softmax is computed in float32 whatever `softmax_precision` says, as ONNX Runtime does. Left as they are: windows (opset 25),
masks shorter than the keys, constant masks that hide all keys of a query, past keys together with `nonpad_kv_seqlen`, unknown
shapes, and of the scores as a result those before softcap and those with booleans in their bias, which ONNX Runtime
gives otherwise than the definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.graph.infer import Shapes
from hwc_onnx.graph.model_view import ModelView, attributes
from hwc_onnx.normalize.heads import (
    HIDDEN,
    KEY_ORDER,
    QUERY_ORDER,
    Heads,
    attend,
    causal,
    constant_bias,
    join_heads,
    split_heads,
)
from hwc_onnx.normalize.writing import Writer

OPERANDS = ("Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen")
RESULTS = ("Y", "present_key", "present_value", "qk_matmul_output")


@dataclass(frozen=True)
class _Case:
    """One node: operands and results by name (those left out are absent), attributes, and sizes."""

    given: Mapping[str, str]
    wanted: Mapping[str, str]
    facts: Mapping[str, Any]
    heads: int
    shared: int
    size: int
    queries: int
    keys: int
    past: int
    flat: bool

    @property
    def boolean(self) -> bool:
        """Whether something besides the mask hides keys."""
        return bool(self.facts.get("is_causal", 0)) or "nonpad_kv_seqlen" in self.given


def write_attention(proto: onnx.ModelProto, shapes: Shapes) -> bool:
    """Write every Attention out that can be, in place; whether there was one."""
    view = ModelView(proto)
    writer = Writer(proto.graph)
    for node in view.graph.node:
        found = node.op_type == "Attention" and node.domain in ("", "ai.onnx")
        case = _case(node, shapes) if found else None
        if case is None or not _expressible(case, view, shapes):
            writer.keep(node)
        else:
            writer.base = node.output[0]
            _write(writer, case, view, shapes)
    return writer.finish()


def _case(node: onnx.NodeProto, shapes: Shapes) -> _Case | None:
    """What a node asks for, None where a shape is not known."""
    given = {role: name for role, name in zip(OPERANDS, node.input, strict=False) if name}
    wanted = {role: name for role, name in zip(RESULTS, node.output, strict=False) if name}
    if any(name not in shapes for name in given.values()):
        return None
    facts = attributes(node)
    q, k = shapes[given["Q"]][0], shapes[given["K"]][0]
    flat = len(q) == 3
    heads = int(facts.get("q_num_heads", 0)) if flat else q[1]
    shared = int(facts.get("kv_num_heads", 0)) if flat else k[1]
    if not heads or not shared or heads % shared:
        return None
    past = shapes[given["past_key"]][0][2] if "past_key" in given else 0
    size = q[-1] // heads if flat else q[-1]
    return _Case(given, wanted, facts, heads, shared, size, q[-2], k[-2] + past, past, flat)


def _expressible(case: _Case, view: ModelView, shapes: Shapes) -> bool:
    facts, given = case.facts, case.given
    if max(facts.get("left_window_size", -1), facts.get("right_window_size", -1)) >= 0:
        return False
    if "nonpad_kv_seqlen" in given and "past_key" in given:
        return False
    shape, kind = shapes[given["attn_mask"]] if "attn_mask" in given else ((1,), "float")
    if shape[-1] not in (1, case.keys):
        return False
    if "qk_matmul_output" in case.wanted:
        mode = facts.get("qk_matmul_output_mode", 0)
        if mode == 0 and facts.get("softcap", 0.0) > 0:
            return False
        if mode == 2 and (kind == "bool" or case.boolean):
            return False
    values = _constant_mask(case, view)
    return values is None or _always_some_key(case, values)


def _constant_mask(case: _Case, view: ModelView) -> NDArray[Any] | None:
    """The mask, if it is a constant and nothing that is computed hides keys."""
    name = case.given.get("attn_mask", "")
    return view.array(name) if name in view.initializers and "nonpad_kv_seqlen" not in case.given else None


def _always_some_key(case: _Case, values: NDArray[Any]) -> bool:
    seen = values if values.dtype == np.bool_ else values > HIDDEN
    if case.facts.get("is_causal", 0):
        seen = seen & causal(case.queries, case.keys, case.past)
    return bool(seen.any(axis=-1).all())


def _write(writer: Writer, case: _Case, view: ModelView, shapes: Shapes) -> None:
    given, wanted, facts = case.given, case.wanted, case.facts
    queries, keys, values = given["Q"], given["K"], given["V"]
    direct = case.flat and "past_key" not in given and "present_key" not in wanted
    if case.flat:
        queries = split_heads(writer, queries, case.heads, "q")
        keys = split_heads(writer, keys, case.shared, "k", KEY_ORDER if direct else QUERY_ORDER)
        values = split_heads(writer, values, case.shared, "v")
    if "past_key" in given:
        keys = writer.node("Concat", [given["past_key"], keys], "keys", wanted.get("present_key", ""), axis=2)
        values = writer.node("Concat", [given["past_value"], values], "values", wanted.get("present_value", ""), axis=2)
    else:
        for role, name in (("present_key", keys), ("present_value", values)):
            if role in wanted:
                writer.node("Identity", [name], "", wanted[role])
    if not direct:
        keys = writer.node("Transpose", [keys], "k_turned", perm=[0, 1, 3, 2])
    if case.heads != case.shared:
        order = writer.sizes(np.repeat(np.arange(case.shared), case.heads // case.shared).tolist(), "head_of_query")
        keys = writer.node("Gather", [keys, order], "k_repeated", axis=1)
        values = writer.node("Gather", [values, order], "v_repeated", axis=1)
    bias, emptied = _bias(writer, case, view, shapes)
    scale = float(facts.get("scale", case.size**-0.5))
    asked = Heads(queries, keys, values, scale, bias, emptied, float(facts.get("softcap", 0.0)))
    scores = attend(writer, asked, "" if case.flat else wanted["Y"])
    if case.flat:
        join_heads(writer, scores.result, wanted["Y"])
    if "qk_matmul_output" in wanted:
        mode = int(facts.get("qk_matmul_output_mode", 0))
        shown = (scores.plain, scores.capped, scores.biased, scores.probabilities)[mode]
        writer.node("Identity", [shown], "", wanted["qk_matmul_output"])


def _bias(writer: Writer, case: _Case, view: ModelView, shapes: Shapes) -> tuple[str, bool]:
    """What is added to the scores (empty: nothing), and whether it can hide all keys of a query."""
    mask = case.given.get("attn_mask", "")
    ordered = causal(case.queries, case.keys, case.past) if case.facts.get("is_causal", 0) else None
    constant = _constant_mask(case, view)
    if constant is not None and constant.dtype == np.bool_:
        return constant_bias(writer, constant if ordered is None else constant & ordered), False
    if constant is not None:
        values = np.maximum(constant if ordered is None else np.where(ordered, constant, HIDDEN), HIDDEN)
        return writer.constant(values.astype(np.float32), "bias"), False
    if "nonpad_kv_seqlen" in case.given:
        attended = [_unpadded(writer, case)]
    elif not mask:
        return ("", False) if ordered is None else (constant_bias(writer, ordered), False)
    else:
        attended = [] if ordered is None else [writer.constant(ordered, "attended")]
    boolean = bool(mask) and shapes[mask][1] == "bool"
    attended += [mask] if boolean else []
    if not attended:
        return mask, True
    seen = attended[0]
    for other in attended[1:]:
        seen = writer.node("And", [seen, other], "attended")
    shown = mask if mask and not boolean else writer.number(0.0, "zero")
    return writer.node("Where", [seen, shown, writer.number(-np.inf, "infinity")], "bias"), True


def _unpadded(writer: Writer, case: _Case) -> str:
    """[N, 1, 1, T] or [N, 1, S, T]: the keys that are no padding, and none behind a causal query's own place."""
    filled = writer.node("Reshape", [case.given["nonpad_kv_seqlen"], writer.sizes([0, 1, 1, 1], "filled_sizes")], "filled")
    places = np.arange(case.keys)
    seen = writer.node("Less", [writer.sizes(places.tolist(), "places"), filled], "unpadded")
    if not case.facts.get("is_causal", 0):
        return seen
    # the last query stands at the last key that is no padding
    ahead = places[None] - np.arange(case.queries)[:, None] + case.queries
    behind = writer.node("LessOrEqual", [writer.constant(ahead, "ahead"), filled], "causal")
    return writer.node("And", [seen, behind], "attended")
