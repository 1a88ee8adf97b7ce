"""Nodes of a graph written anew: a node is kept, or others with fresh names take its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.normalize.editing import all_names, fresh_name, put_initializer


class Writer:
    """Collects nodes in order; `finish` puts them into the graph. Tensors are named after `base`, the result they serve."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.base = ""
        self.changed = False
        self._taken = all_names(graph)
        self._nodes: list[onnx.NodeProto] = []
        self._known: dict[bytes, str] = {}

    def keep(self, node: onnx.NodeProto) -> None:
        """Take a node over as it is."""
        self._nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))

    def node(self, op: str, inputs: Sequence[str], role: str, out: str = "", **attributes: Any) -> str:
        """Append a node with one result, called `out` or `<base>_<role>`; the name of the result."""
        name = out or fresh_name(self._taken, f"{self.base}_{role}")
        self._nodes.append(onnx.helper.make_node(op, list(inputs), [name], name=f"{name}_{op}", **attributes))
        self.changed = True
        return name

    def constant(self, values: NDArray[Any], role: str) -> str:
        """The name of an initializer of these values; equal ones are stored once."""
        key = values.dtype.str.encode() + str(values.shape).encode() + values.tobytes()
        if key not in self._known:
            self._known[key] = fresh_name(self._taken, f"{self.base}_{role}")
            put_initializer(self.graph, self._known[key], values)
        return self._known[key]

    def number(self, value: float, role: str) -> str:
        """A float32 scalar."""
        return self.constant(np.asarray(value, np.float32), role)

    def sizes(self, values: Sequence[int], role: str) -> str:
        """A list of int64, such as the target of a Reshape."""
        return self.constant(np.asarray(values, np.int64), role)

    def finish(self) -> bool:
        """Put the nodes into the graph; whether any was written anew."""
        if self.changed:
            del self.graph.node[:]
            self.graph.node.extend(self._nodes)
        return self.changed
