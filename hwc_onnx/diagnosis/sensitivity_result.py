"""The record of a sensitivity analysis: rows of layers, columns of settings, and what each unit lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hwc_onnx.diagnosis.bench import Damage
from hwc_onnx.diagnosis.settings import Setting, Unit

SCHEMA = 1


@dataclass(frozen=True)
class Row:
    """One layer, the `position`-th of the network; of a product of two activations one row for each operand (0 or 1).

    `energy_share` is its share of the INT8 baseline's energy, `damage_share` its mean share of the damage that all rows
    have under a setting (units of several layers count to equal parts). `units` names the unit of each setting.
    """

    key: str
    op_type: str
    position: int
    operand: int
    energy_share: float
    damage_share: float
    units: Mapping[str, Unit]

    @property
    def damage_per_energy(self) -> float | None:
        """Damage share over energy share: above 1 the layer is better left at more bits than others."""
        return self.damage_share / self.energy_share if self.energy_share > 0 else None


@dataclass(frozen=True)
class Column:
    """One setting: damage of each unit alone, by its name, and of all of them together."""

    setting: Setting
    alone: Mapping[str, Damage]
    units: tuple[Unit, ...]
    together: Damage | None

    @property
    def total(self) -> float:
        """Sum of the single damages."""
        return sum(found.damage for found in self.alone.values())

    @property
    def total_drop(self) -> float:
        """Sum of the single drops in points."""
        return sum(found.drop_points for found in self.alone.values())


@dataclass(frozen=True)
class Sensitivity:
    """Damage of each layer under each setting; rows are sorted, the most sensitive first."""

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    damage_kind: str
    metric: str
    original: float | None
    samples: int
    real: bool
    accelerator: str
    notes: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The content of `sensitivity --json`."""
        return {
            "schema": SCHEMA,
            "metric": self.metric,
            "original": self.original,
            "damage_kind": self.damage_kind,
            "samples": self.samples,
            "data": "real" if self.real else "synthetic",
            "accelerator": self.accelerator,
            "everything_else": "float",
            "settings": [
                {
                    "name": column.setting.name,
                    "kind": column.setting.kind,
                    "text": column.setting.text,
                    "units": [
                        {"name": unit.name, "layers": list(unit.layers), **column.alone[unit.name].to_json()}
                        for unit in column.units
                    ],
                    "sum": {"damage": column.total, "drop_points": column.total_drop},
                    "together": None if column.together is None else column.together.to_json(),
                }
                for column in self.columns
            ],
            "layers": [
                {
                    "key": row.key,
                    "op_type": row.op_type,
                    "position": row.position,
                    "operand": row.operand,
                    "energy_share": row.energy_share,
                    "damage_share": row.damage_share,
                    "damage_per_energy": row.damage_per_energy,
                    "cells": {column.setting.name: self._cell(row, column) for column in self.columns},
                }
                for row in self.rows
            ],
            "notes": list(self.notes),
            "seconds": self.seconds,
        }

    def _cell(self, row: Row, column: Column) -> dict[str, Any] | None:
        """A row's number, with the layers that share it."""
        unit = row.units.get(column.setting.name)
        if unit is None:
            return None
        tied = [key for key in unit.layers if key != row.key]
        return {"unit": unit.name, "tied": tied, **column.alone[unit.name].to_json()}
