"""Open a model in ONNX Runtime on the CPU and run all samples through it, batch by batch.

Every number that this project reports about accuracy comes out of these sessions, so what could change a result
silently is set here and nowhere else: the optimisation level, the number of threads, and the kernels for 8-bit products.
"""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.accuracy.inputs import InputSpec, sampled
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import DataError, RuntimeFailure
from hwc_onnx.graph.external import is_large, mapped_feeds, without_mapped

if TYPE_CHECKING:
    import onnxruntime

Level = Literal["all", "extended", "basic", "disable", "fake_quant"]
Spread = Literal["samples", "operators"]
LEVELS: tuple[Level, ...] = ("disable", "basic", "extended", "all")
"""The four graph-optimisation levels of ONNX Runtime."""

THREADS_VARIABLE = "HWC_ONNX_THREADS"

_LEVEL_NAMES: dict[str, str] = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
    "fake_quant": "ORT_ENABLE_ALL",
}
_BATCH_ELEMENTS = 1 << 18
_LARGEST_BATCH = 16
_FLAGS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm")


@dataclass(frozen=True)
class Session:
    """An open model: ONNX Runtime's session, what it reads and writes, and the settings that its results depend on.

    `spread` says what the threads share: batches that run side by side, or the work inside one operator. `constants`
    are weights of a large model, fed from where they are mapped. `batch_behind` says that some output declares the batch behind
    its first axis (a sequence before the batch).
    """

    ort: onnxruntime.InferenceSession
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    threads: int
    level: Level
    spread: Spread = "samples"
    constants: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    batch_behind: bool = False

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that the model declares, 1 where it gives out batches behind another axis, or None: any."""
        if self.batch_behind:
            return 1
        return next((spec.shape[0] for spec in self.inputs if spec.shape and spec.shape[0] is not None), None)

    def run(self, feeds: Mapping[str, NDArray[np.generic]], names: Sequence[str] | None = None) -> list[Any]:
        """The outputs `names` (None: all) of one batch.

        Raises:
            RuntimeFailure: ONNX Runtime fails; its own reason is quoted.
        """
        try:
            return list(self.ort.run(None if names is None else list(names), {**feeds, **self.constants}))
        except Exception as error:
            raise RuntimeFailure(
                f"running the model failed: {_reason(error)}; check that the original runs on the same samples"
            ) from error


def usable_threads() -> int:
    """CPU cores that this process may use, at most $HWC_ONNX_THREADS of them where that is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    stated = os.environ.get(THREADS_VARIABLE, "")
    return min(cores, max(int(stated), 1)) if stated.isdecimal() else cores


@functools.cache
def cpu_features() -> str:
    """The instruction sets that decide which 8-bit kernels run, such as "x86_64 avx2 avx512_vnni"."""
    flags: set[str] = set()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                flags = set(line.partition(":")[2].split())
                break
    except OSError:
        return platform.machine()
    return " ".join([platform.machine(), *(flag for flag in _FLAGS if flag in flags)])


def open_session(
    model: onnx.ModelProto | str | Path,
    threads: int | None = None,
    level: Level = "all",
    spread: Spread = "samples",
) -> Session:
    """Open a model.

    Args:
        model: a model, or the path of one (needed above 2 GB or with external data).
        threads: how many to use; None takes all usable cores.
        level: one of ONNX Runtime's optimisation levels, or "fake_quant": every optimisation except the fusion of
            quantizers into integer kernels. It computes the same function in float arithmetic, with rounding exactly
            where the file has quantizers, and is faster where the CPU's integer kernels are slow.
        spread: "samples" lets `run` keep one batch per thread under way, which wastes no core on small operators;
            "operators" divides each operator, for callers that run one batch at a time.

    Raises:
        RuntimeFailure: ONNX Runtime refuses the model; its own reason is quoted.
    """
    import onnxruntime

    count = threads or usable_threads()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count if spread == "operators" else 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # x86 without VNNI saturates 16-bit sums of 8-bit products; this picks kernels that do not. With VNNI nothing
    # saturates, and the same kernels would only be slower
    options.add_session_config_entry("session.x64quantprecision", "0" if "vnni" in cpu_features() else "1")
    # a MatMul with quantized weights only would otherwise compute with 8-bit activations of its own making
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if not isinstance(model, str | Path) and any(is_large(tensor) for tensor in model.graph.initializer):
        # the usual order restores the weights of all layers from their integers before the first one runs
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    if level == "fake_quant":
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    where = str(model) if isinstance(model, str | Path) else f"model '{model.graph.name}'"
    source = str(model) if isinstance(model, str | Path) else without_mapped(model).SerializeToString()
    # a fusion may lose a tensor that is read in the middle of a graph; what is computed does not depend on the level
    names = (_LEVEL_NAMES[level], "ORT_ENABLE_EXTENDED") if level == "fake_quant" else (_LEVEL_NAMES[level],)
    for name in names:
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, name)
        try:
            session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"], enable_fallback=0)
            break
        except Exception as error:
            if name == names[-1]:
                raise RuntimeFailure(
                    f"{where}: ONNX Runtime {onnxruntime.__version__} cannot open it at level '{level}': {_reason(error)}; "
                    "check that the model runs unmodified, and that this version supports its opset and operators"
                ) from error
    constants = {} if isinstance(model, str | Path) else mapped_feeds(model)
    specs = sampled(
        [
            InputSpec(value.name, _static(value.shape), _numpy_type(value.type))
            for value in session.get_inputs()
            if value.name not in constants
        ]
    )
    outputs = tuple(value.name for value in session.get_outputs())
    return Session(session, specs, outputs, count, level, spread, constants, _batch_behind(session))


def _batch_behind(session: onnxruntime.InferenceSession) -> bool:
    names = {value.shape[0] for value in session.get_inputs() if value.shape and isinstance(value.shape[0], str)}
    shapes = [value.shape for value in session.get_outputs() if value.shape]
    return any(shape[0] not in names and not names.isdisjoint(shape[1:]) for shape in shapes)


def batch_size(session: Session) -> int:
    """The batch that runs fastest: the model's own when fixed, else so many samples that the inputs stay in cache.

    A rule instead of a timing, because float results depend on the batch in their last digits.
    """
    if session.fixed_batch is not None:
        return session.fixed_batch
    elements = sum(int(np.prod([size or 1 for size in spec.shape[1:]])) for spec in session.inputs)
    fitting = max(1, _BATCH_ELEMENTS // max(1, elements))
    return min(_LARGEST_BATCH, 1 << (fitting.bit_length() - 1))


def run(session: Session, samples: Samples, batch: int | None = None) -> dict[str, NDArray[np.generic]]:
    """All outputs for all samples, [N, ...] by output name.

    A model with a fixed batch gets its last batch padded with repetitions, whose outputs are dropped. An output whose
    first axis is a multiple of the batch (a reshaped sequence) is split into [N, multiple, ...].

    Raises:
        DataError: the samples lack an input, or have a name, type or shape that the model does not accept.
        RuntimeFailure: ONNX Runtime fails, or an output has no axis that follows the batch.
    """
    size = session.fixed_batch or batch or batch_size(session)
    feeds = _feeds(session, samples)
    total = len(samples)
    results: dict[str, NDArray[np.generic]] = {}
    allocating = Lock()

    def one(start: int) -> None:
        stop = min(start + size, total)
        padded = size if session.fixed_batch is not None else stop - start
        values = session.run(
            {spec.name: spec.fed(_pad(feeds[spec.name][start:stop], padded)) for spec in session.inputs}
        )
        for name, value in zip(session.outputs, values, strict=True):
            rows = _per_sample(name, value, padded)[: stop - start]
            with allocating:
                into = results.setdefault(name, np.empty((total, *rows.shape[1:]), rows.dtype))
            if into.shape[1:] != rows.shape[1:]:
                raise RuntimeFailure(
                    f"output '{name}': shape {list(rows.shape[1:])} for samples {start} to {stop - 1} but "
                    f"{list(into.shape[1:])} elsewhere; every sample must give the same output shape"
                )
            into[start:stop] = rows

    starts = range(0, total, size)
    workers = min(session.threads, len(starts)) if session.spread == "samples" else 1
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for _ in pool.map(one, starts):
            pass
    return results


def _feeds(session: Session, samples: Samples) -> dict[str, NDArray[np.generic]]:
    """The samples' arrays that the model reads, checked once before the loop."""
    from hwc_onnx.accuracy.checks import check_inputs

    check_inputs(samples.inputs, session.inputs, "samples")
    return {spec.name: samples.inputs[spec.name] for spec in session.inputs}


def _pad(array: NDArray[np.generic], size: int) -> NDArray[np.generic]:
    """`array` with its last row repeated up to `size` rows."""
    if len(array) == size:
        return np.ascontiguousarray(array)
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])


def _per_sample(name: str, value: Any, size: int) -> NDArray[np.generic]:
    """One output as [size, ...]."""
    if isinstance(value, np.ndarray) and value.ndim and value.shape[0] == size:
        return value
    if isinstance(value, np.ndarray) and value.ndim and value.shape[0] and value.shape[0] % size == 0:
        return value.reshape(size, value.shape[0] // size, *value.shape[1:])
    if isinstance(value, np.ndarray) and size == 1:
        return value[None]
    shape = list(value.shape) if isinstance(value, np.ndarray) else type(value).__name__
    raise RuntimeFailure(
        f"output '{name}': {shape} for a batch of {size} samples; outputs must be tensors whose first axis follows the "
        "batch; export the model with a batch of 1 if it mixes samples"
    )


def _static(shape: list[Any]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) and size > 0 else None for size in shape)


def _numpy_type(name: str) -> np.dtype[Any]:
    """The numpy type of ONNX Runtime's "tensor(float)"."""
    inner = name.removeprefix("tensor(").removesuffix(")")
    known = {"float": "float32", "double": "float64", "string": "object"}
    try:
        return np.dtype(known.get(inner, inner))
    except TypeError as error:
        raise DataError(
            f"input type {name}: not a tensor type that samples can have; feed a model with tensor inputs"
        ) from error


def _reason(error: Exception) -> str:
    """ONNX Runtime's message without its bracketed status prefix, on one line."""
    text = " ".join(str(error).split())
    return text.rpartition("[ONNXRuntimeError] : ")[2] or type(error).__name__
