"""Tables of `verify`: each check with what was found, and what was counted from the file."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from hwc_onnx.report.console import table, wrapped
from hwc_onnx.report.quantities import energy, percent, size

RULES = "TensorRT rules"
DENSE = "float: the original with 16-bit operands and the zeros among activations that the file records, else none."
UNMEASURED = "Checked on random inputs; --data measures the agreement with the original."

NOT_RUN = "The file was not run: only what can be read from it was checked."


def verify_tables(payload: dict[str, Any]) -> list[RenderableType]:
    """Checks, then widths, bytes and energy, and on real samples how far the answers are the original's.

    On random inputs that says nothing: a network's answers to noise are close to ties.
    """
    checks = table(None, "check", "", "found", left=3)
    checks.columns[0].no_wrap = True
    for check in payload["checks"]:
        checks.add_row(check["name"], "ok" if check["passed"] else "FAILED", check["found"])
    counted = table(None, "counted from the file", "", left=2)
    measured = payload["data"] == "real"
    if measured:
        if payload["agreement"] is not None:
            counted.add_row(
                f"agreement with the original on {payload['n_samples']} samples", percent(payload["agreement"])
            )
        if payload["relative_error"] is not None:
            counted.add_row(f"relative difference of the outputs ({payload['n_samples']} samples)", percent(payload["relative_error"]))
    for label, key in (("weight tensors by width", "weight_bits"), ("activations by width", "activation_bits")):
        widths = ", ".join(f"{number} x {bits} bit" for bits, number in payload[key].items())
        counted.add_row(label, widths or "none quantized")
    counted.add_row("weights that are not zero", percent(payload["weight_density"]))
    counted.add_row("file", f"{size(payload['file_bytes'])} (original {size(payload['original_bytes'])})")
    if payload["energy_pj"] is not None:
        figures, unit = payload["energy_pj"], payload["energy_unit"]
        counted.add_row(
            "energy per inference", f"{energy(figures['compressed'], unit)} (float {energy(figures['float'], unit)})"
        )
    rows = _capability_rows(payload["capabilities"], payload["dialect"])
    runs = table(None, "runtime", "level", "", "difference", "found", left=5)
    for row in rows:
        runs.add_row(*row)
    where: list[RenderableType] = [runs, ""] if rows else []
    failed = [check["name"] for check in payload["checks"] if not check["passed"]]
    verdict = "all checks passed" if payload["passed"] else f"FAILED: {', '.join(failed)}"
    hint = [] if measured else ["", UNMEASURED if payload["levels"] else NOT_RUN]
    dense = [] if payload["energy_pj"] is None else [wrapped(DENSE)]
    return [checks, "", *where, counted, *dense, *hint, "", f"{payload['compressed']}: {verdict}"]


def _capability_rows(rows: list[dict[str, Any]], dialect: str) -> list[tuple[str, str, str, str, str]]:
    """Each runtime at each level, with the difference from ONNX Runtime without optimisations; rules that are met in one row, and those
    that are not where the file is none for TensorRT.
    """
    other = dialect != "tensorrt"
    shown = []
    for row in rows:
        if row["status"] != "met" and not (other and row["runtime"] == RULES):
            name = row["runtime"] if row["version"] is None else f"{row['runtime']} {row['version']}"
            apart = "" if row["relative_error"] is None else percent(row["relative_error"])
            shown.append((name, row["level"], row["status"], apart, row["found"]))
    met = [row["level"] for row in rows if row["status"] == "met"]
    rules = [row for row in rows if row["runtime"] == RULES]
    broken = ", ".join(row["level"] for row in rules if row["status"] == "broken")
    if rules and other and broken:
        return [*shown, (RULES, f"{len(met)} of {len(rules)}", "met", "", f"not meant for it (--dialect tensorrt is); not met: {broken}")]
    return [*shown, *([(RULES, f"{len(met)} of {len(rules)}", "met", "", ", ".join(met))] if met else [])]
