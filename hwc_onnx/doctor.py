"""What this machine offers: versions, threads, the processor's 8-bit products, and which bit widths really open and agree.

The probe is a small network of the layers that matter (Conv, depthwise Conv, an Add, Gemm), written at each pair of widths as
`apply` writes it and opened at every optimisation level of the ONNX Runtime that is installed. Its answers at each level are
compared with those of the same file without optimisations.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hwc_onnx.accuracy.runner import LEVELS, THREADS_VARIABLE, cpu_features, open_session, usable_threads
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.candidate import assemble
from hwc_onnx.commit import commit
from hwc_onnx.errors import RuntimeFailure
from hwc_onnx.files import CACHE_VARIABLE, cache_folder
from hwc_onnx.result import versions
from hwc_onnx.runtimes.elsewhere import installed
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.workspace import calibrate, open_float_model

WIDTHS = tuple((weight, activation) for activation in (8, 4) for weight in (8, 6, 4, 3, 2))
"""Pairs of weight and activation bits that are tried."""
EXTRAS = {
    "pillow": ("images", "folders of images as data"),
    "cmaes": ("cmaes", "the sampler cmaes"),
    "openvino": ("openvino", "verifying files in OpenVINO"),
    "qonnx": ("qonnx", "verifying files of dialect qonnx"),
}
"""Package to the extra that installs it, and what it is for."""
SAFE_FLAGS = ("avx512_vnni", "avx_vnni", "asimddp", "i8mm", "amx_int8")
"""Processors with one of these add 8-bit products without saturating."""
TOLERANCE = 0.02
"""Root-mean-square difference between levels, as a share of the outputs': a rounding that falls the other way."""
SIDE, CHANNELS, CLASSES, SAMPLES = 8, 8, 10, 64


@dataclass(frozen=True)
class Probe:
    """One pair of widths: the levels at which the file does not open or differs, with the reason."""

    weight_bits: int
    activation_bits: int
    failures: dict[str, str]

    def payload(self) -> dict[str, Any]:
        """Plain values."""
        return {"weight_bits": self.weight_bits, "activation_bits": self.activation_bits, "failures": self.failures}


def examine() -> dict[str, Any]:
    """The content of `doctor --json` (`doctor.schema.json`)."""
    flags = cpu_features()
    cache = cache_folder()
    return {
        "schema": 1,
        "versions": versions(),
        "commit": commit(),
        "platform": platform.platform(),
        "python": sys.executable,
        "cpu_features": flags,
        "wide_products": any(flag in flags.split() for flag in SAFE_FLAGS),
        "threads": usable_threads(),
        "memory_bytes": _memory(),
        "environment": {name: os.environ[name] for name in (THREADS_VARIABLE, CACHE_VARIABLE) if name in os.environ},
        "cache": {"path": None if cache is None else str(cache), "bytes": 0 if cache is None else folder_bytes(cache)},
        "providers": providers(),
        "extras": [
            {
                "extra": extra,
                "purpose": purpose,
                "installed": bool(installed(package)),
                "package": package,
                "version": installed(package) or None,
            }
            for package, (extra, purpose) in EXTRAS.items()
        ],
        "probes": [probe.payload() for probe in probe_widths()],
    }


def providers() -> list[str]:
    """Execution providers that the installed ONNX Runtime offers; accuracy is measured with the CPU's, whatever else there is."""
    import onnxruntime

    return [str(name) for name in onnxruntime.get_available_providers()]


def probe_widths() -> list[Probe]:
    """Whether files of each pair of widths open at every level and compute the same there."""
    opened = open_float_model(probe_model())
    rng = np.random.default_rng(0)
    images = rng.normal(size=(SAMPLES, 3, SIDE, SIDE)).astype(np.float32)
    calibrated = calibrate(opened, Samples({"x": images}, None), seed=0)
    found = []
    for weight, activation in WIDTHS:
        plan = uniform(opened.graph, parse_spec(f"w{weight}a{activation}"))
        proto = assemble(calibrated.proto, opened.graph, calibrated.database.stitch(plan)).proto
        answers: dict[str, np.ndarray] = {}
        failures: dict[str, str] = {}
        for level in LEVELS:
            try:
                answers[level] = np.asarray(open_session(proto, level=level).run({"x": images})[0])
            except RuntimeFailure as error:
                failures[level] = str(error)
        plain = answers.get("disable")
        for where, answer in answers.items():
            apart = 0.0 if plain is None else float(np.linalg.norm(answer - plain)) / max(float(np.linalg.norm(plain)), 1e-12)
            if apart > TOLERANCE:
                failures[where] = f"its answers differ by {apart:.1%} from those without optimisations"
        found.append(Probe(weight, activation, failures))
    return found


def probe_model() -> onnx.ModelProto:
    """A residual network of four layers on images of 8 x 8, with weights from a fixed seed."""
    rng = np.random.default_rng(0)
    sizes = {
        "first": (CHANNELS, 3, 3, 3),
        "depthwise": (CHANNELS, 1, 3, 3),
        "second": (CHANNELS, CHANNELS, 1, 1),
        "last": (CLASSES, CHANNELS),
    }
    weights = [
        numpy_helper.from_array(rng.normal(0.0, (2.0 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32), name)
        for name, shape in sizes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "depthwise"], ["c"], pads=[1, 1, 1, 1], group=CHANNELS),
        helper.make_node("Conv", ["c", "second"], ["d"]),
        helper.make_node("Add", ["b", "d"], ["e"]),
        helper.make_node("Relu", ["e"], ["f"]),
        helper.make_node("GlobalAveragePool", ["f"], ["g"]),
        helper.make_node("Flatten", ["g"], ["h"]),
        helper.make_node("Gemm", ["h", "last"], ["y"], transB=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])
    graph = helper.make_graph(nodes, "probe", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder; what vanishes meanwhile counts nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def _memory() -> int | None:
    """Bytes of the machine's memory, None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
