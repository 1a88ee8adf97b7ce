"""The commit that the running code was made from, where that is known.

A checkout is asked with git; a copy that pip installed from a repository has the commit in its `direct_url.json` (PEP 610). Neither may
be there, nor git, so that nothing here fails: what is not known is None.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

SHOWN = 12
"""Digits of a commit that are shown."""
PATIENCE = 5.0
"""Seconds that git is waited for."""
HOME = Path(__file__).parents[1]
"""The folder that holds the package: the checkout, or a folder of installed packages."""


def commit() -> str | None:
    """The commit's first digits, with `-dirty` behind them where files of the checkout were changed since."""
    return of_checkout(HOME) if (HOME / ".git").exists() else of_distribution("hwc-onnx")


def of_checkout(folder: Path) -> str | None:
    """What git says of a checkout; None where it says nothing."""
    # a hook of another repository sets GIT_DIR and the like; no lock, since others may be committing
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {"GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", f"--abbrev={SHOWN}", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE, env=environment)
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None
    return done.stdout.strip() or None


def of_distribution(name: str) -> str | None:
    """The commit that an installed copy was built from; None where it does not say."""
    try:
        recorded = json.loads(distribution(name).read_text("direct_url.json") or "{}")
        found = recorded["vcs_info"]["commit_id"]
    except (PackageNotFoundError, OSError, ValueError, LookupError, TypeError):
        return None
    return found[:SHOWN] if isinstance(found, str) and re.fullmatch(r"[0-9A-Za-z]+", found) else None
