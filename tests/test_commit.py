"""Which commit the code is said to be of: a checkout's, an installed copy's, or none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hwc_onnx import commit
from hwc_onnx.cli.main import cli
from tests.cli.running import hwc


def git(folder: Path, *words: str) -> str:
    who = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    for role in ("AUTHOR", "COMMITTER"):
        who |= {f"GIT_{role}_NAME": "a", f"GIT_{role}_EMAIL": "a@b.c"}
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ) | who).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_checkout_names_its_commit_and_whether_files_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert commit.of_checkout(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert commit.of_checkout(tmp_path) is None
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "a")
    git(tmp_path, "tag", "v1")
    full = git(tmp_path, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "none"))
    assert commit.of_checkout(tmp_path) == full[: commit.SHOWN]
    (tmp_path / "a").write_text("2")
    assert commit.of_checkout(tmp_path) == f"{full[: commit.SHOWN]}-dirty"


def test_without_git_no_commit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit.of_checkout(tmp_path) is None


@pytest.mark.parametrize(
    ("recorded", "found"),
    [
        ({"url": "https://a.b/c", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef"}}, "0123456789ab"),
        ({"url": "https://a.b/c", "vcs_info": {"vcs": "git", "commit_id": 7}}, None),
        ({"url": "file:///a", "dir_info": {}}, None),
        ([], None),
        ("not JSON", None),
        (None, None),
    ],
)
def test_an_installed_copy_says_what_pip_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: object, found: str | None
) -> None:
    folder = tmp_path / "made_up_for_this-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up-for-this\nVersion: 1.0\n")
    if recorded is not None:
        (folder / "direct_url.json").write_text(recorded if isinstance(recorded, str) else json.dumps(recorded))
    monkeypatch.syspath_prepend(tmp_path)
    assert commit.of_distribution("made-up-for-this") == found


def test_a_package_that_is_not_installed_has_none() -> None:
    assert commit.of_distribution("no-such-package-at-all") is None


@pytest.mark.parametrize("known", ["0123456789ab", None])
def test_version_says_the_commit_where_it_is_known(monkeypatch: pytest.MonkeyPatch, known: str | None) -> None:
    monkeypatch.setattr(commit, "commit", lambda: known)
    first = hwc("--version").stdout.splitlines()[0]
    assert first.endswith(", commit 0123456789ab") == (known is not None) and "None" not in first


def test_version_is_told_where_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def nothing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", nothing)
    result = hwc("--version")
    assert result.exit_code == 0 and result.stdout.startswith("hwc-onnx not installed") and cli.name == "cli"
