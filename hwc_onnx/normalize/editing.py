"""Small edits of a GraphProto that keep names, order and subgraph reads right."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import onnx
from numpy.typing import NDArray

from hwc_onnx.graph.domains import is_foreign
from hwc_onnx.graph.external import is_mapped, keep
from hwc_onnx.graph.model_view import reads, subgraphs

logger = logging.getLogger(__name__)


def rename_reads(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Make every node (subgraphs included) read the new name wherever it read the old one."""
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in names:
                node.input[place] = names[name]
        for inner in subgraphs(node):
            rename_reads(inner, names)
            for value in inner.output:
                if value.name in names:
                    value.name = names[value.name]


def keep_nodes(graph: onnx.GraphProto, wanted: Callable[[onnx.NodeProto], bool]) -> None:
    """Drop the nodes that are not wanted, in place."""
    kept = [node for node in graph.node if wanted(node)]
    if len(kept) != len(graph.node):
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(copies)


def put_initializer(graph: onnx.GraphProto, name: str, values: NDArray[Any]) -> None:
    """Add an initializer, or give an existing one new values; large values of a mapped model go where its others are."""
    put_tensor(graph, keep(name, values, any(is_mapped(tensor) for tensor in graph.initializer)))


def put_tensor(graph: onnx.GraphProto, tensor: onnx.TensorProto) -> None:
    """Add an initializer, or replace the one of its name."""
    for existing in graph.initializer:
        if existing.name == tensor.name:
            existing.CopyFrom(tensor)
            return
    graph.initializer.append(tensor)


def all_names(graph: onnx.GraphProto) -> set[str]:
    """Every tensor name in use, subgraphs included."""
    names = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        names.update(node.input, node.output)
        for inner in subgraphs(node):
            names |= all_names(inner)
    return names


def fresh_name(taken: set[str], base: str) -> str:
    """`base`, or `base` with the first free number behind it; the name is added to `taken`."""
    name, number = base, 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    taken.add(name)
    return name


def name_first_outputs(graph: onnx.GraphProto) -> None:
    """Give a name to every first result that is left out (an LSTM of which only the last state is read), in place.

    The first result's name is a node's key.
    """
    taken = all_names(graph)
    for node in graph.node:
        if node.output and not node.output[0]:
            node.output[0] = fresh_name(taken, f"{_first(node.output)}_of_all")


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes that no output depends on, initializers nobody reads, and stale shape records."""
    needed = {value.name for value in graph.output}
    useful: set[str] = set()
    for node in reversed(graph.node):
        if any(name in needed for name in node.output if name):
            useful.add(next(name for name in node.output if name))
            needed.update(reads(node))
    keep_nodes(graph, lambda node: next((name for name in node.output if name), "") in useful)
    kept = [tensor for tensor in graph.initializer if tensor.name in needed]
    if len(kept) != len(graph.initializer):
        copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del graph.initializer[:]
        graph.initializer.extend(copies)
    forget_shapes(graph)


def forget_shapes(graph: onnx.GraphProto) -> None:
    """Drop the declared shapes of inner tensors, which a rewrite may have made wrong.

    What operators of foreign domains make keeps its declaration: nothing else tells its shape.
    """
    foreign = {name for node in graph.node if is_foreign(node) for name in node.output}
    kept = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in graph.value_info if v.name in foreign]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def sort_nodes(proto: onnx.ModelProto) -> None:
    """Put nodes into topological order, in place; a graph that already is in order stays as it is.

    A graph with a cycle, or with a read of something nobody makes, is left for the checker, which names it better.
    """
    graph = proto.graph
    made = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:
        if not made.issuperset(reads(node)):
            break
        made.update(node.output)
    else:
        return
    import onnx_graphsurgeon as gs

    try:
        order = [_first(out.name for out in node.outputs) for node in gs.import_onnx(proto).toposort().nodes]
    except Exception:  # whatever is wrong with such a graph
        logger.debug("the nodes could not be sorted", exc_info=True)
        return
    rank = {name: place for place, name in enumerate(order)}
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    graph.node.extend(sorted(copies, key=lambda node: rank[_first(node.output)]))


def _first(names: Iterable[str]) -> str:
    """The first name of an output that is not left out."""
    return next((name for name in names if name), "")


def remove_attributes(node: onnx.NodeProto, names: Iterable[str]) -> None:
    """Drop attributes by name."""
    gone = set(names)
    kept = [attribute for attribute in node.attribute if attribute.name not in gone]
    if len(kept) != len(node.attribute):
        copies = [onnx.AttributeProto.FromString(attribute.SerializeToString()) for attribute in kept]
        del node.attribute[:]
        node.attribute.extend(copies)


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Give an attribute a new value."""
    remove_attributes(node, [name])
    node.attribute.append(onnx.helper.make_attribute(name, value))
