"""The float model that a plan's integers are written into: without the channels that leave, with the constants that change."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.errors import RuntimeFailure
from hwc_onnx.graph import external
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.rewrite.remove_channels import Keep, remove_channels

Constants = Mapping[str, NDArray[np.float32]]
"""Initializer -> its values once channels are removed."""


def float_model(proto: onnx.ModelProto, graph: LayerGraph, keep: Keep, constants: Constants) -> onnx.ModelProto:
    """The model in which groups have only the channels `keep` and the initializers in `constants` these values.

    Args:
        proto: the normalised float model that `graph` was parsed from; it is left alone, and returned where nothing changes.
        graph: its layer graph.
        keep: kept channels by group root (absent: all).
        constants: new values, of the shape that the initializer has without the removed channels.

    Raises:
        PlanError: as for `remove_channels`.
        RuntimeFailure: a constant is not in the model, or has another shape there.
    """
    model = remove_channels(proto, graph, keep) if keep else proto
    return with_constants(model, constants) if constants else model


def with_constants(proto: onnx.ModelProto, constants: Constants) -> onnx.ModelProto:
    """A copy with other values in some initializers (RuntimeFailure as for `float_model`)."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    large = external.any_mapped(proto)
    left = dict(constants)
    for tensor in model.graph.initializer:
        values = left.pop(tensor.name, None)
        if values is None:
            continue
        if tuple(tensor.dims) != values.shape:
            raise RuntimeFailure(
                f"constant '{tensor.name}' has the shape {tuple(tensor.dims)} in the model and {values.shape} in the plan's "
                "weights; this is our bug, please report it"
            )
        tensor.CopyFrom(external.keep(tensor.name, values, large))
    if left:
        raise RuntimeFailure(f"constant '{min(left)}' is not in the model; this is our bug, please report it")
    return model
