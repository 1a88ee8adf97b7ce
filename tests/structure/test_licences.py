"""THIRD_PARTY.md against what there is: the packages' own licence texts, the photographs, and the built package's licence files."""

from __future__ import annotations

import configparser
import re
import sys
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
NOTICE = (ROOT / "THIRD_PARTY.md").read_text()
NAMES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}


def words(text: str) -> str:
    return " ".join(text.split())


def test_notice_and_licence_are_installed_with_the_package() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["license_files"].split() == ["LICENSE", "THIRD_PARTY.md"]
    assert "THIRD_PARTY.md" in (ROOT / "examples" / "pipelines" / "Dockerfile").read_text()


def test_plotly_s_own_licence_is_the_one_that_is_shown() -> None:
    from plotly.offline import get_plotlyjs

    (file,) = [path for path in distribution("plotly").files or [] if path.name == "LICENSE.txt"]
    title, holder, text = re.split(r"\n\s*\n", Path(str(file.locate())).read_text(encoding="utf-8").strip(), maxsplit=2)
    assert title.strip() == "MIT License" and words(text) in words(NOTICE)
    assert re.sub(r"[\d-]+", "", holder).strip() in re.sub(r"[\d-]+", "", NOTICE)
    head = get_plotlyjs()[:2000]
    assert "Licensed under the MIT license" in head
    (made,) = re.findall(r"\* (Copyright [^\n]+Plotly, Inc\.)", head)
    assert re.sub(r"[\d-]+", "", made) in re.sub(r"[\d-]+", "", NOTICE)


def test_data_and_networks_of_the_repository_are_named() -> None:
    with np.load(ROOT / "sample_models" / "fashion_mnist.npz", allow_pickle=False) as archive:
        assert f"{len(archive['y']) + len(archive['y_holdout']):,} of its images" in NOTICE
    assert "Copyright © 2017 Zalando SE, https://tech.zalando.com" in NOTICE
    assert list((ROOT / "hwc_onnx").rglob("*.safetensors")) == [ROOT / "hwc_onnx" / "search" / "policy.safetensors"]
    assert "`hwc_onnx/search/policy.safetensors`" in NOTICE


def test_each_photograph_is_listed_with_its_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("PIL")
    monkeypatch.syspath_prepend(ROOT / "sample_models")
    from photographs import PHOTOGRAPHS  # type: ignore[import-not-found]

    rows = [f"| `{one.debian or NAMES[one.package]}` | `{one.file}` | {one.licence} |" for one in PHOTOGRAPHS]
    listed = NOTICE.split("| package | photograph |")[1].strip().splitlines()[2:]
    assert listed == rows
    sys.modules.pop("photographs", None)
