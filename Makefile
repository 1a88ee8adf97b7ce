.DEFAULT_GOAL := help
.PHONY: help install demo test test-all lint types docs site golden samples wheel-check clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := demo
JOBS ?= 2
INPUTS := setup.cfg pyproject.toml constraints.txt .ci/install

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

$(VENV)/.installed: $(INPUTS)
	PYTHON="$(PYTHON)" .ci/install $(VENV) editable
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	PYTHON="$(PYTHON)" .ci/install $(VENV) editable images,dev
	@touch $@

$(VENV)/.installed-samples: $(VENV)/.installed-dev
	PYTHON="$(PYTHON)" .ci/install $(VENV) editable images,samples
	@touch $@

install: $(VENV)/.installed-dev ## Create .venv and install the package with its test tools

demo: $(VENV)/.installed ## Install, then compress the sample resnet20: the main job, a few minutes on two cores
	@mkdir -p $(DEMO)
	$(BIN)/hwc-onnx compress sample_models/resnet20.onnx --data sample_models/fashion_mnist.npz \
	    --accel edge-flex --compare-accel edge-flex-fixed8 --compare-accel edge-tpu-64x64 \
	    --compare-accel eyeriss-v2-sparse --max-drop 1.0 --trials 200 --seed 0 \
	    --output $(DEMO)/resnet20.hwc.onnx

test: $(VENV)/.installed-dev ## Install what the tests need and run them
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(JOBS) --dist worksteal -m "not slow"

test-all: $(VENV)/.installed-dev ## The tests, slow ones too
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(JOBS) --dist worksteal

lint: $(VENV)/.installed-dev ## Style and import rules
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev ## Static types
	$(BIN)/mypy

docs: $(VENV)/.installed-dev ## Rewrite the command reference, the schemas of plan, accelerator and configuration, the record of their fields, and the outputs in README.md
	$(BIN)/python docs/cli_reference.py
	$(BIN)/python docs/plan_schema.py
	$(BIN)/python docs/accelerator_schema.py
	$(BIN)/python docs/config_schema.py
	$(BIN)/python docs/schema_fields.py
	$(BIN)/python docs/readme_outputs.py

site: $(VENV)/.installed-dev ## Build the documentation as a site into build/site; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

golden: $(VENV)/.installed-dev ## Rewrite the golden energy files; review the diff
	$(BIN)/pytest -q tests/golden tests/cost --update-golden

samples: $(VENV)/.installed-samples ## Build EfficientNet-Lite0 and its image crops, profile it and quantize it
	$(BIN)/python sample_models/efficientnet_lite0.py
	$(BIN)/hwc-onnx profile sample_models/generated/efficientnet_lite0.onnx --top 10
	$(BIN)/hwc-onnx apply sample_models/generated/efficientnet_lite0.onnx --uniform w8a8 \
	    --data sample_models/generated/natural_crops.npz --output sample_models/generated/efficientnet_lite0.hwc.onnx

wheel-check: ## Install a built copy in a fresh environment and use it outside the checkout
	PYTHON="$(PYTHON)" .ci/wheel-check

clean: ## Remove builds, caches and the demo's files (keeps .venv)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .venv-wheel $(DEMO)
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
