"""Walk through a model once, tensor by tensor, while the part ahead is still being changed.

Asking for the inputs of all layers one after the other would run the first layers again for each. A walk keeps what the
pieces ahead will read and runs only the nodes in between, so that all layers together cost one forward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.accuracy.inputs import input_specs
from hwc_onnx.accuracy.runner import open_session
from hwc_onnx.accuracy.tensors import check_fills, fixed_batch, needed_nodes, with_outputs
from hwc_onnx.accuracy.types import Samples

KEPT_BYTES = 512 << 20
"""What is kept of one walk; where the pieces ahead read more, the next one starts from the inputs again."""

Batches = list[NDArray[Any]]


class Walk:
    """The tensors of one model over fixed samples; what was computed stays valid, what lies ahead may change."""

    def __init__(
        self, samples: Samples, threads: int | None = None, batch: int = 64, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self._samples, self._threads, self._batch, self._limit = samples, threads, batch, kept_bytes
        self._kept: dict[str, Batches] = {}

    def to(
        self, proto: onnx.ModelProto, names: Sequence[str], ahead: Sequence[str]
    ) -> Iterator[tuple[range, list[NDArray[np.float32]]]]:
        """Yield (numbers of the samples, tensors `names`) for every batch; must be exhausted before the next call.

        A model with a fixed batch gets whole batches only.

        Args:
            proto: the model; all that earlier calls computed must be the same in it, names included.
            names: the tensors.
            ahead: tensors that will be asked for later.

        Raises:
            DataError: fewer samples than the model's fixed batch.
            RuntimeFailure: ONNX Runtime cannot run the piece.
        """
        feeds = self._feeds(proto)
        nodes, _ = needed_nodes(proto, names, self._kept)
        made = {output for node in nodes for output in node.output}
        at_hand = made | self._kept.keys()
        _, read = needed_nodes(proto, ahead, at_hand)
        kept, fresh = sorted(read & self._kept.keys() - made), sorted(read & made)
        outputs = sorted({*names, *fresh} & made)
        piece = with_outputs(proto, outputs, [_value(*item) for item in self._kept.items()])
        session = open_session(piece, self._threads, "fake_quant", "operators") if outputs else None
        collected: dict[str, Batches] = {output: [] for output in fresh}
        room = self._limit - sum(array.nbytes for tensor in kept for array in self._kept[tensor])
        for number, (images, feed) in enumerate(feeds):
            values = feed | {tensor: batches[number] for tensor, batches in self._kept.items()}
            if session is not None:
                arrays = session.run({spec.name: values[spec.name] for spec in session.inputs}, outputs)
                values.update(zip(outputs, arrays, strict=True))
            for tensor, batches in collected.items():
                batches.append(values[tensor])
                room -= values[tensor].nbytes
            if room < 0:
                collected = {}
            yield images, [np.asarray(values[name], dtype=np.float32) for name in names]
        self._kept = {tensor: self._kept[tensor] for tensor in kept} | collected if room >= 0 else {}

    def _feeds(self, proto: onnx.ModelProto) -> list[tuple[range, dict[str, NDArray[Any]]]]:
        """(numbers of the samples, the model's inputs) of every batch."""
        specs = input_specs(proto)
        fixed, count = fixed_batch(specs), len(self._samples)
        step = fixed or self._batch
        if fixed is not None:
            check_fills(fixed, count)
        last = count - (count % fixed if fixed else 0)
        inputs = self._samples.inputs
        batches = (range(first, min(first + step, last)) for first in range(0, last, step))
        return [(at, {spec.name: spec.fed(inputs[spec.name][at.start : at.stop]) for spec in specs}) for at in batches]


def _value(name: str, batches: Batches) -> onnx.ValueInfoProto:
    """The declaration of a kept tensor: static sizes where all batches agree."""
    sizes = [set(along) for along in zip(*(array.shape for array in batches), strict=True)]
    shape = [along.pop() if len(along) == 1 else None for along in sizes]
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(batches[0].dtype), shape)
