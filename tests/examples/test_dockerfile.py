"""The Dockerfile of examples/pipelines, without docker: its rules, that what it copies builds the package, and hadolint where it is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "examples" / "pipelines" / "Dockerfile"


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, its text) with continued lines joined and comments left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in "\n".join(lines).replace("\\\n", " ").splitlines()]


def broken_rules(text: str) -> set[str]:
    """Rules that a Dockerfile breaks."""
    found = instructions(text)
    defaults = dict(value.split("=", 1) for name, value in found if name == "ARG")
    bases = [re.sub(r"\$\{(\w+)\}", lambda match: defaults[match.group(1)], value).split()[0] for name, value in found if name == "FROM"]
    last = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    final = dict(found[last:])
    installs = [part for name, value in found if name == "RUN" for part in value.split("&&") if "pip install" in part]
    torch = [part for part in installs if part.split()[-1].startswith("torch")]
    rules = {
        "base images name a version": all(re.search(r":\d+\.\d+\.\d+-slim-\w+$", base) for base in bases),
        "not root": re.fullmatch(r"[1-9]\d*:[1-9]\d*", final.get("USER", "0:0")) is not None,
        "entry point": final.get("ENTRYPOINT") == '["hwc-onnx"]',
        "works in /data": final.get("WORKDIR") == "/data",
        "no cache": all("--no-cache-dir" in part for part in installs),
        "pinned": all("-c constraints.txt" in part for part in installs),
        "torch for the CPU, first": bool(torch) and torch[0] == installs[0] and "whl/cpu" in torch[0],
        "built in a stage of its own": len(bases) == 2 and "pip install" not in " ".join(value for _, value in found[last:]),
    }
    return {rule for rule, kept in rules.items() if not kept}


def test_dockerfile_keeps_the_rules() -> None:
    assert broken_rules(DOCKERFILE.read_text()) == set()


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("PYTHON=3.11.14-slim-bookworm", "PYTHON=latest", "base images name a version"),
        ("USER 10001:10001\n", "", "not root"),
        ("USER 10001:10001", "USER 0:0", "not root"),
        ('ENTRYPOINT ["hwc-onnx"]', "ENTRYPOINT hwc-onnx", "entry point"),
        ("install --no-cache-dir -c constraints.txt", "install -c constraints.txt", "no cache"),
        ("--index-url https://download.pytorch.org/whl/cpu ", "", "torch for the CPU, first"),
    ],
)
def test_broken_rule_is_noticed(old: str, new: str, rule: str) -> None:
    text = DOCKERFILE.read_text()
    assert old in text
    assert broken_rules(text.replace(old, new)) == {rule}


def copied(text: str, folder: Path) -> None:
    """Copy into the folder what the first stage copies out of the checkout."""
    for name, value in instructions(text):
        if name == "COPY" and "--from" not in value:
            *sources, target = value.split()
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / source, folder / target)


def wheel(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", "made", "."]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_what_is_copied_builds_the_whole_package(tmp_path: Path) -> None:
    copied(DOCKERFILE.read_text(), tmp_path)
    built = wheel(tmp_path)
    assert built.returncode == 0, built.stderr
    (file,) = (tmp_path / "made").glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
    assert {"hwc_onnx/api.py", "hwc_onnx/cli/main.py", "hwc_onnx/accel_profiles/edge-flex.yaml"} <= names
    assert any(name.endswith("entry_points.txt") for name in names)
    assert {name.rsplit("/", 1)[-1] for name in names if "/licenses/" in name} == {"LICENSE", "THIRD_PARTY.md"}


def test_forgotten_folder_is_noticed(tmp_path: Path) -> None:
    copied(DOCKERFILE.read_text().replace("COPY cli cli\n", ""), tmp_path)
    assert wheel(tmp_path).returncode != 0


def test_hadolint_finds_nothing() -> None:
    found = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip("hadolint is not installed (make install)")
    done = subprocess.run([found, DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
