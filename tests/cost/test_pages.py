"""accel_profiles/README.md and docs/energy-model.md against the code."""

import re
from pathlib import Path

import pytest
import yaml

from hwc_onnx.cost import accelerator
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import list_profiles, parse_profile, template_text
from hwc_onnx.cost.types import COMPONENTS
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models

ROOT = Path(__file__).parents[2]
README = (ROOT / "accel_profiles" / "README.md").read_text(encoding="utf-8")
ENERGY = (ROOT / "docs" / "energy-model.md").read_text(encoding="utf-8")
MODELS = [
    model
    for model in vars(accelerator).values()
    if isinstance(model, type) and issubclass(model, accelerator._Model) and model is not accelerator._Model
]


def test_template_is_a_valid_file_that_costs_a_network():
    profile = parse_profile(yaml.safe_load(template_text()), "template")
    assert CostModel(profile).cost(parse(normalize(tiny_models.residual()))).total > 0


def named_in_readme():
    """Words in inline code, blocks left out."""
    text = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    return set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", text))))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_readme_names_every_field(model):
    assert {field.alias or name for name, field in model.model_fields.items()} - named_in_readme() == set()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_template_shows_every_field(model):
    words = set(re.findall(r"\w+", template_text()))
    assert {field.alias or name for name, field in model.model_fields.items()} - words == set()


def test_a_field_that_the_readme_forgets_is_noticed():
    """The broken twin."""
    assert {"bits", "voltage"} - named_in_readme() == {"voltage"}


def test_readme_lists_the_shipped_files_and_no_others():
    assert re.findall(r"^\| `([\w-]+)` \| .* \|", README.split("## Write your own")[0], re.MULTILINE) == list_profiles()


def test_readme_lists_every_law_of_arithmetic():
    laws = accelerator.Mac.model_fields["law"].annotation.__args__
    assert re.findall(r"^\| `(\w+)` \| .* \| .* \| .* \| .* \|$", README, re.MULTILINE) == list(laws)


def test_energy_page_explains_every_component_law_and_format():
    law = accelerator.Mac.model_fields["law"].annotation.__args__
    kind = accelerator.Format.model_fields["kind"].annotation.__args__
    assert [name for name in (*COMPONENTS, *law, *kind) if f"| `{name}` |" not in ENERGY] == []
