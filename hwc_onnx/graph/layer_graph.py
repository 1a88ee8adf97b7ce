"""The layer graph: what the model computes, read once, never changed.

Every node of the model is a `Node`; nodes that multiply and accumulate are also a `Layer`. Tensors carry the width
they are stored at and the share of their elements that is not zero, so the same graph describes a float model, the
INT8 baseline or a compressed candidate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

from hwc_onnx.graph.loop_dims import LoopDims
from hwc_onnx.graph.zero_pattern import Pattern

FLOAT_BITS = 16
"""Width at which unquantized tensors are costed (see docs/energy-model.md)."""

MOST_REMOVED = 0.95
"""The largest share of weights or channels that may be removed."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: static shape for the input shape at hand, stored width in bits and share of non-zero elements.

    `kind` is "input", "output", "activation" or "constant"; `density` is P(q != zero_point) at `bits`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: str
    bits: int = FLOAT_BITS
    density: float = 1.0


@dataclass(frozen=True)
class Node:
    """One node of the model without quantize/dequantize helpers; `key` is its first output tensor's name."""

    key: str
    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """A node that multiplies and accumulates.

    `weight` is the initializer's name, None for a MatMul of two activations (then `weight_bits` is the second
    operand's width). `inputs` are its activation operands (without weight and bias), `bias` the bias initializer.
    `weight_shape` is the ONNX layout; `output_axis`/`input_axis` are the weight's axes of output and input channels.
    A recurrent layer's `weight` [directions, gates x hidden, inputs] is read with `state_weight` [directions, gates x hidden,
    hidden] beside it, as one matrix of inputs + hidden columns; both have one width and one scale for each row.
    `nm_pattern` is (N, M) when the zeros follow an N:M pattern, `Blocks` when they fill whole blocks, `weight_sum` the largest sum of magnitudes of the integers
    that one output adds (None where the file's weights are not integers; no plan foretells it, so it does not compare).
    `ratio_bounds` are the lowest and highest share that may be removed.
    """

    key: str
    node_name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weight: str | None
    bias: str | None
    weight_shape: tuple[int, ...]
    output_axis: int
    input_axis: int
    loop_dims: LoopDims
    weight_bits: int = FLOAT_BITS
    activation_bits: int = FLOAT_BITS
    output_bits: int = FLOAT_BITS
    weight_density: float = 1.0
    activation_density: float = 1.0
    nm_pattern: Pattern | None = None
    algorithm: str = "none"
    state_weight: str | None = None
    weight_sum: int | None = field(default=None, compare=False)
    ratio_bounds: tuple[float, float] = (0.0, MOST_REMOVED)

    @property
    def params(self) -> int:
        """Weights; none for a product of two activations."""
        if self.weight is None:
            return 0
        if self.state_weight is None:
            return prod(self.weight_shape)
        return prod((*self.weight_shape[:-1], self.loop_dims.C))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return self.loop_dims.macs


@dataclass(frozen=True)
class Member:
    """One axis of one tensor (activation or initializer) of a channel group.

    `index[p]` is the group channel that position p along `axis` belongs to, or -1 when the position is not in the
    group (another Concat operand, say). A Flatten gives runs: [0, 0, 0, 1, 1, 1, ...].
    """

    tensor: str
    axis: int
    index: tuple[int, ...]


FIXED = -1
"""The part of channels that always stay."""


@dataclass(frozen=True)
class ChannelGroup:
    """All (tensor, axis, index) that must lose the same channels together.

    `producers` are the layer keys whose output channels the group is, `consumers` those whose input channels it is.
    A group with `locked_because` cannot lose channels; the text says why, in words a user understands.
    `parts[c]` is the part that channel c belongs to: all tensors treat the channels of a part alike, and each part keeps
    its share (empty when there is one part only). Channels of part FIXED always stay (they are those of an input, say).
    At least `floor` channels stay.
    """

    root: str
    channels: int
    members: tuple[Member, ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    locked_because: str | None = None
    parts: tuple[int, ...] = ()
    floor: int = 0

    @cached_property
    def part_sizes(self) -> tuple[int, ...]:
        """Channels of each part; fixed ones are in none."""
        sizes = [0] * (max(self.parts, default=0) + 1)
        for part in self.parts or (0,) * self.channels:
            if part != FIXED:
                sizes[part] += 1
        return tuple(sizes)

    @cached_property
    def fixed(self) -> int:
        """Channels that always stay."""
        return self.channels - sum(self.part_sizes)

    def kept_of_parts(self, kept: int) -> tuple[int, ...]:
        """How many channels of each part stay when `kept` do in all: shares by largest remainder, at least one of each.

        `kept` is at least `least_kept()`; ties go to the earlier part.
        """
        sizes = self.part_sizes
        kept -= self.fixed
        shares = [max(1.0, kept * size / sum(sizes)) for size in sizes]
        found = [min(size, int(share)) for size, share in zip(sizes, shares, strict=True)]
        while sum(found) != kept:
            step = 1 if sum(found) < kept else -1
            able = [
                part for part, size in enumerate(sizes) if (found[part] < size if step > 0 else found[part] > 1)
            ]
            chosen = max(able, key=lambda part: (step * (shares[part] - found[part]), -part))
            found[chosen] += step
        return tuple(found)

    def least_kept(self) -> int:
        """The fewest channels that can stay."""
        return max(self.fixed + len(self.part_sizes), self.floor)


@dataclass(frozen=True)
class ActivationGroup:
    """One stored tensor quantizer: `tensor` and the tensors that share its scale, with all layers reading them.

    `tensors` lists every tensor joined through value-preserving ops; `readers` are layer keys. One width per group.
    """

    tensor: str
    tensors: tuple[str, ...]
    readers: tuple[str, ...]


@dataclass(frozen=True)
class Body:
    """A graph that a node runs `trips` times: `name` is "body" (Loop, Scan), "then_branch" or "else_branch" (If)."""

    name: str
    graph: LayerGraph
    trips: int


@dataclass(frozen=True)
class LayerGraph:
    """A parsed model. `nodes` are in topological order; `unmodelled` are (node key, reason).

    `fused` maps a tensor that is never stored to the key of the node that consumes it on the fly: the output of a
    convolution that goes straight into a Relu, or the branch of a residual Add that is finished last. Everything else
    that is not a constant is stored, belongs to exactly one activation group, and costs memory traffic. `bodies` are those of
    a node with control flow, by its key (of an If both, of which one runs).
    """

    layers: tuple[Layer, ...]
    nodes: tuple[Node, ...]
    tensors: Mapping[str, TensorInfo]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    source_digest: str
    channel_groups: tuple[ChannelGroup, ...] = ()
    activation_groups: tuple[ActivationGroup, ...] = ()
    fused: Mapping[str, str] = field(default_factory=dict)
    unmodelled: tuple[tuple[str, str], ...] = ()
    bodies: Mapping[str, tuple[Body, ...]] = field(default_factory=dict)

    def layer(self, key: str) -> Layer:
        """The layer with this key (KeyError if there is none)."""
        return self._by_key[key]

    def group_of(self, key: str) -> ChannelGroup | None:
        """The channel group whose channels are this layer's output channels, or None."""
        return self._by_producer.get(key)

    def activation_group_of(self, tensor: str) -> ActivationGroup | None:
        """The activation group that this tensor is stored in, or None."""
        return self._by_tensor.get(tensor)

    @cached_property
    def _by_key(self) -> dict[str, Layer]:
        return {layer.key: layer for layer in self.layers}

    @cached_property
    def _by_producer(self) -> dict[str, ChannelGroup]:
        return {key: group for group in reversed(self.channel_groups) for key in group.producers}

    @cached_property
    def _by_tensor(self) -> dict[str, ActivationGroup]:
        return {tensor: group for group in reversed(self.activation_groups) for tensor in group.tensors}
