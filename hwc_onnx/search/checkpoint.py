"""Agent checkpoints: everything the agents hold after n trials, so that a resumed study need not replay them.

The file names the trials that it was made from by a hash of their plans and outcomes, and the search by its seed,
budget and policy, which the agents depend on. A checkpoint of anything else, another version or a damaged file is
ignored: replaying gives the same bytes, only slower. The file is a policy file as well (policy.py).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.files import write_atomic
from hwc_onnx.search.history import History, Record, outcome_payload
from hwc_onnx.search.policy import SCRATCH, described

if TYPE_CHECKING:
    from hwc_onnx.search.agents import Agents

VERSION = "4"


class Checkpoint:
    """One file, replaced atomically. `search` names what else the agents depend on (`search_of`)."""

    def __init__(self, path: Path, search: str) -> None:
        self.path = path
        self.search = search

    def save(self, history: History, agents: Agents) -> None:
        """Write the agents as they are after `history`."""
        from safetensors.numpy import save

        metadata = described() | {
            "version": VERSION,
            "search": self.search,
            "finished": str(len(history)),
            "trials": digest(history.records),
            "shape": json.dumps([agents.size, agents.families]),
        }
        write_atomic(self.path, save(agents.state(), metadata), "--run-dir")

    def load(self, history: History) -> tuple[int, Agents] | None:
        """The number of trials and the agents after them, if the file belongs to a prefix of `history`."""
        from safetensors import SafetensorError, safe_open

        from hwc_onnx.search.agents import Agents

        if not self.path.is_file():
            return None
        try:
            with safe_open(str(self.path), framework="numpy") as file:
                metadata = file.metadata() or {}
                arrays: dict[str, NDArray[np.generic]] = {name: file.get_tensor(name) for name in file.keys()}
            finished = int(metadata.get("finished", "-1"))
            same = metadata.get("version") == VERSION and metadata.get("search") == self.search
            if not same or not 0 < finished <= len(history):
                return None
            if metadata.get("trials") != digest(history.records[:finished]):
                return None
            size, families = json.loads(metadata["shape"])
            return finished, Agents.restored(size, families, arrays)
        except (SafetensorError, OSError, ValueError, KeyError):
            return None


def search_of(seed: int, trials: int, policy: str | None) -> str:
    """What the agents of a search depend on beside its trials; `policy` is the digest of the policy that they began with."""
    return f"seed {seed}, {trials} trials, policy {policy or SCRATCH}"


def digest(records: list[Record]) -> str:
    """SHA-256 over plans and outcomes in order."""
    text = [
        [record.choices.tolist(), {k: v for k, v in outcome_payload(record.outcome).items() if k != "seconds"}]
        for record in records
    ]
    return hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest()
