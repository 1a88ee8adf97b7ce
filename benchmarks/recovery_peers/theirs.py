"""The peers' side: their Python runs `quantize.py` on the model and the calibration samples, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
from recovery_peers.judge import Judge

SCRIPT = Path(__file__).parent / "quantize.py"


def methods(python: Path) -> dict[str, dict[str, str]]:
    """What the environment can do: per method its setting and the tool with its version."""
    listed = subprocess.run([python, SCRIPT, "--list"], capture_output=True, text=True, check=True)
    return json.loads(listed.stdout.strip().splitlines()[-1])


def write(judge: Judge, python: Path, method: str, seed: int, seconds: float, out: Path) -> str | None:
    """Write the quantized model; what went wrong, or None."""
    calibration = out.with_suffix(".npz")
    np.savez(calibration, **judge.calibration(seed)[0])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    log = out.with_suffix(".log")
    try:
        with log.open("w") as stream:
            process = subprocess.run(
                ["nice", "-n", "5", python, SCRIPT, judge.model.resolve(), calibration.resolve(), method, out.resolve()],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
                timeout=seconds,
                check=False,
            )
    except subprocess.TimeoutExpired:
        return f"not done after {seconds:.0f} s"
    finally:
        calibration.unlink()
    if process.returncode == 0 and out.exists():
        return None
    if process.returncode < 0:
        return f"ended by signal {-process.returncode} (9: out of memory)"
    last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return (last[-1] if last else f"exit {process.returncode}").strip()
