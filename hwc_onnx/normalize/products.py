"""Products written as Einsum become MatMul, with Transposes around it where axes lie in another order.

Of two operands, a letter is of the batch (in both and in the result), summed (in both only), or of one side. A product
with one summed letter and one letter on the right is

    before  z = Einsum("bihd,bjhd->bhij", x, y)        after  z = MatMul(Transpose(x), Transpose(y))

Several letters on the left are rows of a batch where the right operand is a plain matrix. Other equations stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import helper

from hwc_onnx.graph.infer import Shapes
from hwc_onnx.graph.model_view import attributes
from hwc_onnx.normalize.editing import all_names, fresh_name


@dataclass(frozen=True)
class Product:
    """Letters of both operands and of the result, in the order of a MatMul."""

    left: str
    right: str
    result: str


def plain_products(proto: onnx.ModelProto, shapes: Shapes) -> bool:
    """Rewrite every Einsum that is a matrix product, in place; whether there was one."""
    if not any(node.op_type == "Einsum" for node in proto.graph.node):
        return False
    taken = all_names(proto.graph)
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        terms = _terms(node, shapes) if node.op_type == "Einsum" else None
        product = None if terms is None else product_of(*terms)
        if terms is None or product is None:
            nodes.append(copy)
            continue
        swapped = set(product.left) != set(terms[0])
        operands = [node.input[1], node.input[0]] if swapped else list(node.input)
        written = (terms[1], terms[0]) if swapped else (terms[0], terms[1])
        inputs = [
            _turned(nodes, taken, name, letters, wanted)
            for name, letters, wanted in zip(operands, written, (product.left, product.right), strict=True)
        ]
        if product.result == terms[2]:
            nodes.append(helper.make_node("MatMul", inputs, [node.output[0]], name=node.name))
            continue
        raw = fresh_name(taken, f"{node.output[0]}_product")
        nodes.append(helper.make_node("MatMul", inputs, [raw], name=node.name))
        order = [product.result.index(letter) for letter in terms[2]]
        nodes.append(helper.make_node("Transpose", [raw], [node.output[0]], perm=order))
    changed = len(nodes) != len(proto.graph.node) or any(node.op_type == "MatMul" for node in nodes)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return changed


def product_of(first: str, second: str, result: str) -> Product | None:
    """The MatMul that an equation of two operands is, None if it is another one."""
    for left, right in ((first, second), (second, first)):
        batch = [letter for letter in result if letter in left and letter in right]
        summed = [letter for letter in left if letter in right and letter not in result]
        rows = [letter for letter in left if letter not in right]
        columns = [letter for letter in right if letter not in left]
        gone = [letter for letter in rows + columns if letter not in result]
        if len(summed) != 1 or len(columns) != 1 or gone or not rows:
            continue
        if len(rows) > 1 and batch:
            continue
        ahead, last = rows[:-1], rows[-1]
        return Product(
            "".join([*batch, *ahead, last, *summed]),
            "".join([*batch, *summed, *columns]),
            "".join([*batch, *ahead, last, *columns]),
        )
    return None


def _terms(node: onnx.NodeProto, shapes: Shapes) -> tuple[str, str, str] | None:
    """The letters of two operands and of the result; None for anything else, or where a letter repeats in one term."""
    equation = str(attributes(node).get("equation", "")).replace(" ", "")
    operands, arrow, result = equation.partition("->")
    terms = operands.split(",")
    if not arrow or "." in equation or len(terms) != 2 or any(len(set(term)) != len(term) for term in (*terms, result)):
        return None
    sizes: dict[str, int] = {}
    for name, letters in zip(node.input, terms, strict=True):
        if name not in shapes or len(shapes[name][0]) != len(letters):
            return None
        for letter, size in zip(letters, shapes[name][0], strict=True):
            if sizes.setdefault(letter, size) != size:
                return None  # one side is broadcast
    return terms[0], terms[1], result


def _turned(nodes: list[onnx.NodeProto], taken: set[str], name: str, letters: str, wanted: str) -> str:
    if letters == wanted:
        return name
    turned = fresh_name(taken, f"{name}_turned")
    nodes.append(helper.make_node("Transpose", [name], [turned], perm=[letters.index(letter) for letter in wanted]))
    return turned
