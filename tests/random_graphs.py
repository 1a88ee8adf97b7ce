"""Random small networks of everything that channels can be followed through; one seed gives one network."""

from __future__ import annotations

import numpy as np
import onnx

from tests.tiny_models import Builder

SIZE = 4


class Drawn(Builder):
    """A network grown by random steps; a tensor is (name, channels), all images are SIZE x SIZE."""

    def __init__(self, seed: int) -> None:
        super().__init__(["batch", 3, SIZE, SIZE], seed)
        self.pick = np.random.default_rng([seed, 1])
        self.open: list[tuple[str, int]] = []

    def some(self, *choices: int) -> int:
        return int(self.pick.choice(choices))

    def any(self) -> tuple[str, int]:
        return self.open[int(self.pick.integers(max(0, len(self.open) - 3), len(self.open)))]

    def grow(self, steps: int) -> None:
        channels = self.some(4, 8, 12)
        self.open.append((self.node("Relu", self.conv("x", 3, channels)), channels))
        names = sorted(name for name in dir(self) if name.startswith("step_"))
        for _ in range(steps):
            x, channels = self.any()
            made = getattr(self, names[int(self.pick.integers(len(names)))])(x, channels)
            if made is not None:
                self.open.append(made)

    def step_conv(self, x: str, c: int) -> tuple[str, int]:
        out = self.some(4, 6, 8)
        return self.node("Relu", self.conv(x, c, out, self.some(1, 3))), out

    def step_depthwise(self, x: str, c: int) -> tuple[str, int]:
        times = self.some(1, 1, 2)
        return self.conv(x, c, times * c, group=c), times * c

    def step_grouped(self, x: str, c: int) -> tuple[str, int] | None:
        return (self.conv(x, c, c, group=2), c) if c % 2 == 0 and c > 2 else None

    def step_transposed(self, x: str, c: int) -> tuple[str, int]:
        group = 2 if c % 2 == 0 and self.some(0, 1) else 1
        weight = self.weight(c, 4 // group, 3, 3)
        return self.node("ConvTranspose", x, weight, self.vector(4), pads=[1, 1, 1, 1], group=group), 4

    def step_norm(self, x: str, c: int) -> tuple[str, int]:
        facts = [self.const(self.rng.uniform(0.5, 1.5, c)), self.vector(c)]
        if self.some(0, 1):
            return self.node("InstanceNormalization", x, *facts), c
        return self.node("BatchNormalization", x, *facts, self.vector(c), self.const(self.rng.uniform(0.5, 1, c))), c

    def step_group_norm(self, x: str, c: int) -> tuple[str, int] | None:
        if c % 4:
            return None
        grouped = self.node("Reshape", x, self.const([0, c // 2, -1], np.int64))
        normed = self.node("InstanceNormalization", grouped, self.const(np.ones(c // 2)), self.const(np.zeros(c // 2)))
        back = self.node("Reshape", normed, self.const([0, c, SIZE, SIZE], np.int64))
        scale = self.const(self.rng.normal(1, 0.2, (c, 1, 1)))
        return self.node("Add", self.node("Mul", back, scale), self.const(self.rng.normal(0, 0.2, (1, c, 1, 1)))), c

    def step_add(self, x: str, c: int) -> tuple[str, int]:
        others = [name for name, size in self.open if size == c and name != x]
        other = others[int(self.pick.integers(len(others)))] if others else self.conv(x, c, c, 1)
        return self.node("Add", x, other), c

    def step_concat(self, x: str, c: int) -> tuple[str, int]:
        other, size = self.any()
        return self.node("Concat", x, other, axis=1), c + size

    def step_split(self, x: str, c: int) -> tuple[str, int] | None:
        first = self.some(1, 2, c // 2)
        if not 0 < first < c:
            return None
        sizes = self.const([first, c - first], np.int64)
        one, two = self.node("Split", x, sizes, outs=2, axis=1)
        self.open.append((one, first))
        return two, c - first

    def step_gated(self, x: str, c: int) -> tuple[str, int] | None:
        if c % 2:
            return None
        one, two = self.node("Split", x, self.const([c // 2] * 2, np.int64), outs=2, axis=1)
        return self.node("Mul", one, self.node("Sigmoid", two)), c // 2

    def step_slice(self, x: str, c: int) -> tuple[str, int] | None:
        if c < 3:
            return None
        bounds = [self.const([value], np.int64) for value in (1, c - 1, 1)]
        return self.node("Slice", x, *bounds), c - 2

    def step_gather(self, x: str, c: int) -> tuple[str, int]:
        order = self.pick.permutation(c)[: max(2, c - 1)]
        return self.node("Gather", x, self.const(order, np.int64), axis=1), len(order)

    def step_shuffle(self, x: str, c: int) -> tuple[str, int] | None:
        if c % 2:
            return None
        cut = self.node("Reshape", x, self.const([0, 2, c // 2, SIZE, SIZE], np.int64))
        turned = self.node("Transpose", cut, perm=[0, 2, 1, 3, 4])
        return self.node("Reshape", turned, self.const([0, c, SIZE, SIZE], np.int64)), c

    def step_excite(self, x: str, c: int) -> tuple[str, int]:
        pooled = self.node("Relu", self.conv(self.node("GlobalAveragePool", x), c, 3, 1))
        return self.node("Mul", x, self.node("Sigmoid", self.conv(pooled, 3, c, 1))), c

    def step_attend(self, x: str, c: int) -> tuple[str, int]:
        mean = self.node(["ReduceMean", "ReduceMax"][self.some(0, 1)], x, axes=[1], keepdims=1)
        return self.node("Mul", x, self.node("Sigmoid", self.conv(mean, 1, 1))), c

    def step_pixels(self, x: str, c: int) -> tuple[str, int]:
        deep = self.node("SpaceToDepth", x, blocksize=2)
        mode = ["DCR", "CRD"][self.some(0, 1)]
        return self.node("DepthToSpace", self.conv(deep, 4 * c, 8), blocksize=2, mode=mode), 2

    def step_pixel_shuffle(self, x: str, c: int) -> tuple[str, int]:
        deep = self.conv(self.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), c, 12)
        cut = self.node("Reshape", deep, self.const([0, 3, 2, 2, SIZE // 2, SIZE // 2], np.int64))
        turned = self.node("Transpose", cut, perm=[0, 1, 4, 2, 5, 3])
        return self.node("Reshape", turned, self.const([0, 3, SIZE, SIZE], np.int64)), 3

    def step_pad(self, x: str, c: int) -> tuple[str, int]:
        pads = self.const([0, self.some(0, 1), 0, 0, 0, self.some(1, 2), 0, 0], np.int64)
        padded = self.node("Pad", x, pads)
        before, after = (int(n) for n in np.frombuffer(self.constants[-1].raw_data, np.int64)[[1, 5]])
        return padded, c + before + after

    def step_image(self, x: str, c: int) -> tuple[str, int]:
        """The image itself beside the channels: three of them cannot go."""
        return self.node("Concat", x, "x", axis=1), c + 3

    def step_prelu(self, x: str, c: int) -> tuple[str, int]:
        return self.node("PRelu", x, self.weight(c, 1, 1)), c

    def step_neighbours(self, x: str, c: int) -> tuple[str, int]:
        return self.node("LRN", x, size=3), c

    def step_shared(self, x: str, c: int) -> tuple[str, int]:
        weight = self.weight(c, c, 1, 1)
        once = self.node("Conv", x, weight)
        return self.node("Conv", self.node("Relu", once), weight), c

    def step_attention(self, x: str, c: int) -> tuple[str, int] | None:
        """Tokens, LayerNormalization, two heads with queries, keys and values in one product."""
        if c % 2:
            return None
        flat = self.node("Reshape", x, self.const([0, c, SIZE * SIZE], np.int64))
        tokens = self.node("Transpose", flat, perm=[0, 2, 1])
        facts = [self.const(self.rng.uniform(0.5, 1.5, c)), self.vector(c)]
        normed = self.node("LayerNormalization", tokens, *facts, axis=-1)
        joint = self.linear(normed, c, 3 * c)
        cut = self.node("Reshape", joint, self.const([0, SIZE * SIZE, 3, 2, c // 2], np.int64))
        turned = self.node("Transpose", cut, perm=[2, 0, 3, 1, 4])
        q, k, v = (self.node("Gather", turned, self.const(place, np.int64), axis=0) for place in range(3))
        scores = self.node("MatMul", q, self.node("Transpose", k, perm=[0, 1, 3, 2]))
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), v)
        joined = self.node(
            "Reshape",
            self.node("Transpose", mixed, perm=[0, 2, 1, 3]),
            self.const([0, SIZE * SIZE, c], np.int64),
        )
        added = self.node("Add", tokens, self.linear(joined, c, c))
        back = self.node("Transpose", added, perm=[0, 2, 1])
        return self.node("Reshape", back, self.const([0, c, SIZE, SIZE], np.int64)), c


def random_graph(seed: int, steps: int = 8) -> onnx.ModelProto:
    """A network of `steps` random steps whose last tensors are joined, pooled and classified."""
    b = Drawn(seed)
    b.grow(steps)
    ends = b.open[-2:]
    joined = b.node("Concat", *(name for name, _ in ends), axis=1) if len(ends) > 1 else ends[0][0]
    flat = b.node("Flatten", b.node("GlobalAveragePool", joined), axis=1)
    return b.finish(b.gemm(flat, sum(size for _, size in ends), 5), ["batch", 5])
