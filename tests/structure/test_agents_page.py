"""The values that docs/agents.md states for our agents are those of the code."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from hwc_onnx.search.ddpg import DDPGConfig
from hwc_onnx.search.rainbow import RainbowConfig

PAGE = Path(__file__).parents[2] / "docs" / "agents.md"
ROW = re.compile(r"^\| `(\w+)\.(\w+)` \|.*\| ([^|]+) \|$", re.MULTILINE)
CONFIGS = {"DDPGConfig": DDPGConfig(), "RainbowConfig": RainbowConfig()}
UNSTATED = {("RainbowConfig", "clip"), ("RainbowConfig", "margin")}


def test_agents_page_states_the_values_of_the_code() -> None:
    stated = {(owner, name): value for owner, name, value in ROW.findall(PAGE.read_text(encoding="utf-8"))}
    known = {(owner, field.name) for owner, config in CONFIGS.items() for field in fields(config)}
    assert known - UNSTATED == set(stated)
    for (owner, name), value in stated.items():
        assert str(getattr(CONFIGS[owner], name)) == value, f"{owner}.{name}"
