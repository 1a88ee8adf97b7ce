"""A finished run that the tests of the report share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

import hwc_onnx
from tests import tiny_models
from tests.report.browser import BROWSER

EVIL = "c</script><script>alert(1)</script>"


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small compress, with a layer whose name would be a script if it were not escaped."""
    folder = tmp_path_factory.mktemp("report")
    model = tiny_models.chain()
    rename(model, model.graph.node[0].output[0])
    onnx.save(model, folder / "m.onnx")
    x = np.random.default_rng(1).normal(size=(400, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "x.npz", x=x)
    hwc_onnx.compress(
        folder / "m.onnx", data=folder / "x.npz", metric="cosine", max_drop=2.0, trials=12, output=folder / "o.onnx",
        run_dir=folder / "run", compare_accelerators=("edge-flex-fixed8",),
    )  # fmt: skip
    return folder / "run"


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """A real Chromium, where there is one."""
    playwright = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


def rename(model: onnx.ModelProto, old: str) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = EVIL
