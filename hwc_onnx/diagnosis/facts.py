"""What is known of one layer under its setting: the material that its cause is decided from."""

from __future__ import annotations

from dataclasses import dataclass

from hwc_onnx.diagnosis.layer_facts import LayerFacts
from hwc_onnx.diagnosis.tensor_facts import TensorFacts
from hwc_onnx.graph.layer_graph import Layer
from hwc_onnx.plan import LayerConfig


@dataclass(frozen=True)
class CutFacts:
    """Channels that a layer loses: how many of how many stay, and what becomes of the layers that read them.

    `readers` are (layer key, relative output error because of the removal, why it cannot be refitted or None).
    """

    kept: int
    channels: int
    readers: tuple[tuple[str, float, str | None], ...]


@dataclass(frozen=True)
class Facts:
    """All that is known of one layer under its setting; parts that the plan leaves alone are None or empty.

    `strongest` is the input channel that stands out most, and how far (`layer_facts.strongest_input`); `full_error` is the relative output error with recovery "full", `next_error` that with one weight bit more.
    """

    layer: Layer
    config: LayerConfig
    recovery: str
    weights: LayerFacts | None
    full_error: float
    next_error: float | None
    tensors: tuple[TensorFacts, ...]
    strongest: tuple[float, int] | None
    scores: bool
    cut: CutFacts | None
