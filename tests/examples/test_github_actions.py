"""The workflow of examples/pipelines: its shape, and its shell steps run for real, as GitHub's runner calls bash."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.tiny_case import write_tiny_case

PIPELINES = Path(__file__).parents[2] / "examples" / "pipelines"
WORKFLOW = PIPELINES / "github-actions.yaml"


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text())
    return found


def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workflow["jobs"]["compress"]["steps"]
    return found


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a repository that uses the workflow holds."""
    models = tmp_path / "models"
    models.mkdir()
    model, data = write_tiny_case(models)
    model.rename(models / "model.onnx")
    data.rename(models / "val.npz")
    shutil.copy(PIPELINES / "compress.yaml", models)
    return tmp_path


def run(
    workflow: dict[Any, Any], folder: Path, environment: dict[str, str]
) -> Iterator[tuple[str, subprocess.CompletedProcess[str]]]:
    """Run the shell steps until one fails; the job's environment and GitHub's flags of `shell: bash`."""
    assert workflow["defaults"]["run"]["shell"] == "bash"
    given = {**environment, **workflow["env"], "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    for step in steps(workflow):
        if "run" not in step or step["name"] == "Install":
            continue
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=folder, env=given, capture_output=True, text=True, check=False,
        )  # fmt: skip
        yield step["name"], done
        if done.returncode != 0:
            return


def artifact(workflow: dict[Any, Any], name: str) -> tuple[dict[str, Any], list[str]]:
    """The step that uploads an artifact, and its files."""
    step = next(step for step in steps(workflow) if step.get("with", {}).get("name") == name)
    return step, step["with"]["path"].replace("${{ env.BUILD }}", workflow["env"]["BUILD"]).split()


def test_workflow_has_one_job_that_may_only_read(workflow: dict[Any, Any]) -> None:
    assert set(workflow[True]) == {"push", "workflow_dispatch"}  # YAML 1.1 reads `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    assert list(workflow["jobs"]) == ["compress"]
    job = workflow["jobs"]["compress"]
    assert not job["runs-on"].endswith("latest") and job["timeout-minutes"] > 0
    assert [step.get("name", step.get("uses", "").split("@")[0]) for step in job["steps"]] == [
        "actions/checkout", "actions/setup-python", "Install", "Compress", "Verify", "Keep the report", "Keep the model",
    ]  # fmt: skip


def unpinned(text: str) -> list[str]:
    """Actions that are not named by a whole commit with its release beside it."""
    used = re.findall(r"uses: (.*)", text)
    return [action for action in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)]


def test_actions_are_pinned_to_commits() -> None:
    assert unpinned(WORKFLOW.read_text()) == []
    assert unpinned("uses: actions/checkout@v5") == ["actions/checkout@v5"]


def test_shell_steps_hold_no_expression_that_github_would_paste_into_them(workflow: dict[Any, Any]) -> None:
    assert all("${{" not in step.get("run", "") for step in steps(workflow))


def test_install_takes_torch_for_the_cpu_and_the_package_that_the_job_names(workflow: dict[Any, Any]) -> None:
    install = next(step["run"] for step in steps(workflow) if step.get("name") == "Install")
    assert "https://download.pytorch.org/whl/cpu torch" in install and '"$HWC_ONNX"' in install
    setup = configparser.ConfigParser()
    setup.read(PIPELINES.parents[1] / "setup.cfg")
    assert workflow["env"]["HWC_ONNX"].endswith(f"hwc_onnx-{setup['metadata']['version']}-py3-none-any.whl")


def test_report_is_kept_after_a_failure_and_the_model_is_not(workflow: dict[Any, Any]) -> None:
    report, files = artifact(workflow, "hwc-report")
    assert report["if"] == "${{ !cancelled() }}"
    assert {Path(file).name for file in files} >= {"report.html", "result.json"}
    assert "if" not in artifact(workflow, "hwc-model")[0]


def test_steps_pass_where_the_goal_is_met(workflow: dict[Any, Any], checkout: Path, environment: dict[str, str]) -> None:
    done = dict(run(workflow, checkout, environment))
    assert list(done) == ["Compress", "Verify"]
    assert [step.returncode for step in done.values()] == [0, 0], done
    assert "::error" not in done["Compress"].stdout and "goal met" in done["Compress"].stdout
    assert "all checks passed" in done["Verify"].stdout
    assert "goal met" in (checkout / "summary.md").read_text()
    for name in ("hwc-report", "hwc-model"):
        for file in artifact(workflow, name)[1]:
            assert (checkout / file).is_file(), file


def test_steps_fail_and_keep_the_report_where_the_goal_is_missed(
    workflow: dict[Any, Any], checkout: Path, environment: dict[str, str]
) -> None:
    done = dict(run(workflow, checkout, {**environment, "HWC_ONNX_COMPRESS_MAX_ENERGY": "1%"}))
    assert list(done) == ["Compress"] and done["Compress"].returncode == 3, done
    assert re.search(r"^::error title=Goal not met::goal NOT met.*energy.* See report\.html", done["Compress"].stdout, re.MULTILINE)
    for file in artifact(workflow, "hwc-report")[1]:
        assert (checkout / file).is_file(), file
    result = json.loads((checkout / workflow["env"]["BUILD"] / "model.hwc" / "result.json").read_text())
    assert result["exit_code"] == 3 and not result["goal_met"]


def test_steps_fail_and_say_why_where_the_input_is_refused(
    workflow: dict[Any, Any], checkout: Path, environment: dict[str, str]
) -> None:
    (checkout / "models" / "model.onnx").write_bytes(b"not a model")
    done = dict(run(workflow, checkout, environment))
    assert list(done) == ["Compress"] and done["Compress"].returncode == 4, done
    assert "::error title=Input refused::" in done["Compress"].stdout
