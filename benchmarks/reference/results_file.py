"""The file of results both runners write: one record per case and architecture, rewritten after each, so that a run
can be stopped and taken up again, and read while it grows.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class ResultsFile:
    """Records of one tool. Earlier ones are kept, unless one of the same case and architecture is added."""

    def __init__(self, path: Path, tool: str, version: str, settings: dict[str, Any]):
        self.path = path
        self.content: dict[str, Any] = {"tool": tool, "version": version, "settings": settings, "results": []}
        if path.exists():
            earlier = json.loads(path.read_text())
            if (earlier["tool"], earlier["version"]) != (tool, version):
                raise SystemExit(f"{path} was written by {earlier['tool']} {earlier['version']}; give another --out")
            self.content["results"] = earlier["results"]

    def has(self, case: str, architecture: str) -> bool:
        """Whether this case is in the file already."""
        return any(_key(record) == (case, architecture) for record in self.content["results"])

    def add(self, record: Record) -> None:
        """Add a record and write the file, all at once for whoever reads it meanwhile."""
        others = [other for other in self.content["results"] if _key(other) != _key(record)]
        self.content["results"] = [*others, record]
        header = {key: value for key, value in self.content.items() if key != "results"}
        lines = ",\n".join(json.dumps(one) for one in self.content["results"])
        text = f'{json.dumps(header, indent=1)[:-2]},\n "results": [\n{lines}\n]}}\n'
        json.loads(text)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(text)
        os.replace(part, self.path)


def _key(record: Record) -> tuple[str, str]:
    return record["case"], record["architecture"]
