"""Tiny models with a layer database, from inputs that are kept, so that algorithms can be checked against the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.accuracy.collector import collect
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.database import LayerDatabase
from hwc_onnx.graph.layer_graph import Layer, LayerGraph
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.recovery.patches import patches_of
from tests import tiny_models

F64 = NDArray[np.float64]
EVERY_POSITION = 1 << 20


@dataclass(frozen=True)
class Prepared:
    """A model in normal form, its graph, its inputs and the database made from them; the last quarter is held out."""

    proto: onnx.ModelProto
    graph: LayerGraph
    x: NDArray[np.float32]
    database: LayerDatabase

    @property
    def samples(self) -> Samples:
        return Samples({"x": self.x}, None)

    def layer(self, position: int) -> Layer:
        return self.graph.layers[position]

    def weight(self, layer: Layer) -> F64:
        return np.asarray(self.database.parameters[layer.key].weight, np.float64)

    def patches(self, layer: Layer) -> F64:
        """Every input patch of the images to fit on, [groups, n, d]."""
        images = self.x[: len(self.x) - round(len(self.x) / 4)]
        node = next(node for node in self.graph.nodes if node.key == layer.key)
        read = images
        if layer.inputs[0] not in self.graph.inputs:
            shown = onnx.ModelProto()
            shown.CopyFrom(self.proto)
            shown.graph.output.append(onnx.ValueInfoProto(name=layer.inputs[0]))
            (read,) = tiny_models.run(shown, {"x": images}, [layer.inputs[0]])
        return patches_of(layer, node.attributes, read, EVERY_POSITION, np.random.default_rng(0)).astype(np.float64)


def prepare(
    make: Callable[[], onnx.ModelProto],
    *,
    images: int = 16,
    recovery: str = "full",
    lanes: int = 1,
    portable: bool = False,
    cache_dir: Path | None = None,
) -> Prepared:
    proto = normalize(make())
    graph = parse(proto)
    x = tiny_models.feeds(proto, images, seed=1)["x"]
    rng = np.random.default_rng(0)
    calibration = collect(proto, graph, Samples({"x": x}, None), threads=1, gram_rows=EVERY_POSITION, rng=rng)
    options = {"recovery": recovery, "lanes": lanes, "portable": portable, "cache_dir": cache_dir}
    return Prepared(proto, graph, x, LayerDatabase(proto, graph, calibration, **options))
