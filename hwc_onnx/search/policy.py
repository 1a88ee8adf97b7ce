"""Policy files: the networks of both agents, trained on one search or many, as the start of another.

One policy fits every network, limit and accelerator, because what it sees has the same form everywhere (features.py). The
`agent.safetensors` of a run folder is such a file too: what the agents hold beside their networks is left out. Only numbers
are read (safetensors), never code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.errors import UsageError
from hwc_onnx.files import write_atomic
from hwc_onnx.search.features import OBSERVATION, VOCABULARY

if TYPE_CHECKING:
    from hwc_onnx.search.agents import Agents

SCHEMA = "1"
SCRATCH = "none"
PRETRAINED = "pretrained"
SHIPPED = "policy.safetensors"
_NEXT = "give the agent.safetensors of a run folder or a policy file, pretrained for the shipped one, or none to start from scratch"


@dataclass(frozen=True)
class Policy:
    """Networks by name, and the digest that a study keeps of them."""

    arrays: Mapping[str, NDArray[np.generic]]
    digest: str


def described() -> dict[str, str]:
    """What the metadata of a policy file say: form and size of what the networks read and answer."""
    return {
        "policy_schema": SCHEMA,
        "observation": str(OBSERVATION),
        "families": json.dumps(list(VOCABULARY)),
    }


def save_policy(path: Path, agents: Agents) -> None:
    """Write the networks alone."""
    from safetensors.numpy import save

    write_atomic(path, save(dict(agents.policy()), described()))


def open_policy(given: str | Path | None) -> Policy | None:
    """The policy of `--policy`: no policy for None or "none", the shipped one for "pretrained", else the file of this name.

    Raises:
        UsageError: the file cannot be read, is no policy, or is one of another form.
    """
    if given is None or str(given) == SCRATCH:
        return None
    if str(given) == PRETRAINED:
        with resources.as_file(resources.files("hwc_onnx.search").joinpath(SHIPPED)) as path:
            return read_policy(path)
    return read_policy(Path(given))


def read_policy(path: Path) -> Policy:
    """The policy in a file (UsageError where it is none that fits)."""
    from safetensors import SafetensorError, safe_open

    expected_shapes = _shapes()
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys() if name in expected_shapes}
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"--policy {path}: cannot be read as safetensors ({error}); {_NEXT}") from error
    for name, expected in described().items():
        if metadata.get(name) != expected:
            found = "no" if name not in metadata else metadata[name]
            raise UsageError(f"--policy {path}: has {found} {name}, this version reads {expected}; {_NEXT}")
    for name, shape in expected_shapes.items():
        if name not in arrays or arrays[name].shape != shape:
            size = list(arrays[name].shape) if name in arrays else "missing"
            raise UsageError(f"--policy {path}: tensor '{name}' is {size}, this version reads {list(shape)}; {_NEXT}")
    if not all(bool(np.isfinite(array).all()) for array in arrays.values()):
        raise UsageError(f"--policy {path}: holds numbers that are not finite; {_NEXT}")
    return Policy(arrays, _digest(arrays))


def _shapes() -> dict[str, tuple[int, ...]]:
    from hwc_onnx.search.agents import Agents

    return {name: array.shape for name, array in Agents(0).policy().items()}


def _digest(arrays: Mapping[str, NDArray[np.generic]]) -> str:
    """SHA-256 over names and numbers in order."""
    result = hashlib.sha256()
    for name in sorted(arrays):
        result.update(name.encode())
        result.update(np.ascontiguousarray(arrays[name]).tobytes())
    return result.hexdigest()
