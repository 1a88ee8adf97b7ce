"""Run a model in OpenVINO or in the qonnx package, batch by batch as `accuracy.runner` does it with ONNX Runtime.

Neither package is needed to use hwc-onnx; where one is not installed, its version is the empty string.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.accuracy.runner import Session
from hwc_onnx.errors import RuntimeFailure

Feeds = Mapping[str, NDArray[Any]]
Precision = Literal["float32", "default"]
"""Type of the layers that OpenVINO does not run on integers: float32, or what it takes by itself (bfloat16 on some CPUs)."""

_PRODUCTS = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul", "ScaledDotProductAttention"})
"""What OpenVINO calls its nodes that multiply and accumulate."""


def installed(package: str) -> str:
    """The installed version of a package, empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@dataclass(frozen=True)
class Elsewhere(Session):
    """A session whose batches another runtime computes; inputs, outputs and batch are those of the session it is made from.

    `real_type` is the type in which it computes what is not on integers, `on_integers` how many of its matrix products and
    convolutions are, and of how many; None where it does not say.
    """

    runtime: str = ""
    real_type: str = "f32"
    on_integers: tuple[int, int] | None = None
    call: Callable[[Feeds], list[Any]] = field(kw_only=True)

    def run(self, feeds: Feeds, names: Sequence[str] | None = None) -> list[Any]:
        """All outputs of one batch.

        Raises:
            RuntimeFailure: the runtime fails; its own reason is quoted.
        """
        with _quoting(self.runtime):
            return self.call(feeds)


class _quoting:
    """Whatever a runtime raises becomes a RuntimeFailure with the line that says most, which is the last but for one case."""

    def __init__(self, runtime: str) -> None:
        self.runtime = runtime

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, RuntimeFailure):
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            last = lines[-1] if lines else type(error).__name__
            reason = next((line for line in lines if "No conversion rule" in line), last).removeprefix("-- ")
            raise RuntimeFailure(f"{self.runtime} cannot run the file: {reason}") from error


def in_openvino(proto: onnx.ModelProto, session: Session, precision: Precision = "float32") -> Elsewhere:
    """`proto` compiled by OpenVINO for the CPU.

    Args:
        proto: what OpenVINO reads; below 2 GB.
        session: an open session of a model with the same inputs and outputs.
        precision: of layers that do not run on integers.

    Raises:
        RuntimeFailure: OpenVINO is not installed or refuses the model.
    """
    with _quoting("OpenVINO"):
        import openvino

        settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": session.threads}
        if precision == "float32":
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(proto.SerializeToString()), "CPU", settings)
        request = compiled.create_infer_request()
        real_type = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())

    def call(feeds: Feeds) -> list[Any]:
        found = request.infer({name: np.ascontiguousarray(values) for name, values in feeds.items()})
        return [np.array(found[output]) for output in compiled.outputs]

    return _like(session, "OpenVINO", call, real_type, _on_integers(compiled.get_runtime_model()))


def _on_integers(compiled: Any) -> tuple[int, int]:
    """How many products of OpenVINO's compiled graph take 8-bit integers, and how many there are."""
    facts = [node.get_rt_info() for node in compiled.get_ops()]
    types = [info["runtimePrecision"].astype(str) for info in facts if info["layerType"].astype(str) in _PRODUCTS]
    return sum(found in ("u8", "i8") for found in types), len(types)


def in_qonnx(proto: onnx.ModelProto, session: Session) -> Elsewhere:
    """`proto` executed node by node by the qonnx package: Quant nodes by its own code, all others by ONNX Runtime.

    Raises:
        RuntimeFailure: qonnx is not installed or refuses the model.
    """
    prepared: dict[tuple[tuple[int, ...], ...], Any] = {}

    def call(feeds: Feeds) -> list[Any]:
        from qonnx.core.onnx_exec import execute_onnx

        shapes = tuple(np.shape(values) for values in feeds.values())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if shapes not in prepared:
                prepared[shapes] = for_qonnx(proto, feeds)
            found = execute_onnx(prepared[shapes], dict(feeds))
        return [np.asarray(found[name]) for name in session.outputs]

    with _quoting("qonnx"):
        import qonnx  # noqa: F401
    return _like(session, "qonnx", call)


def for_qonnx(proto: onnx.ModelProto, feeds: Feeds) -> Any:
    """qonnx's wrapper around a copy of the model with the shapes of these inputs."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.infer_shapes import InferShapes

    model = onnx.ModelProto()
    model.CopyFrom(proto)
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, np.shape(feeds.get(value.name, ())), strict=False):
            dim.dim_value = size
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return ModelWrapper(model).transform(InferShapes())


def _like(
    session: Session,
    runtime: str,
    call: Callable[[Feeds], list[Any]],
    real_type: str = "f32",
    on_integers: tuple[int, int] | None = None,
) -> Elsewhere:
    facts = {entry.name: getattr(session, entry.name) for entry in fields(Session)}
    return Elsewhere(**{**facts, "threads": 1, "constants": {}}, runtime=runtime, real_type=real_type, on_integers=on_integers, call=call)
