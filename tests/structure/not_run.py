"""Commands of the pages that no test runs, each with the reason.

(page, beginning of the command or a pattern of it, reason). A test notices a command that is neither run nor listed, and a row
that fits no command. What is listed is still checked: options, scripts, make targets and files have to exist.
"""

from __future__ import annotations

HOURS = "a benchmark of minutes to hours"
OTHERS = "makes an environment with packages of other projects"
INSTALL = "installs packages; .ci/run does so in a fresh clone"
OUTPUT = "a line of a benchmark's output, no command"
READERS = "names a layer or an input of the reader's own model"
SILERO = "a model of another package; benchmarks/new_user.py fetches it and runs the same"

NOT_RUN: tuple[tuple[str, str, str], ...] = (
    ("README.md", "make (demo|test) ", "the demo takes minutes and `make test` is these tests; .ci/run starts with `make install` and `make test`"),
    ("README.md", r"python3 -m venv \.venv-use", INSTALL),
    ("README.md", "pip install -c constraints.txt", INSTALL),
    ("docs/cli.md", "hwc-onnx COMMAND --help", "COMMAND stands for any command; tests/cli/test_help.py runs all"),
    ("docs/cli.md", "hwc-onnx inspect model.onnx --input-shape images:1x3x224x224", READERS),
    ("docs/cli.md", "hwc-onnx data check model.onnx --data photographs", "needs photographs of the reader"),
    ("docs/cli.md", "hwc-onnx (fix silero_vad|compress vad16k)", SILERO),
    ("docs/faq.md", "hwc-onnx (fix silero_vad|compress vad16k)", SILERO),
    ("docs/dialects.md", ".*python benchmarks/dialects.py", HOURS),
    ("docs/energy-validation.md", "python benchmarks/energy.py", HOURS),
    ("docs/hardware.md", "python benchmarks/hardware_matters.py", "a minute of computing"),
    ("docs/silicon.md", "python benchmarks/silicon.py", "most of a minute of computing; tests/cost/test_silicon.py runs its parts"),
    ("docs/results.md", "python benchmarks/(headline|refit|evaluation_speed|large_model|energy_speed)", HOURS),
    ("docs/results.md", "(python -c pass|hwc-onnx --help|hwc-onnx compress --help) +median", OUTPUT),
    (
        "docs/new-models.md",
        "((OMP_NUM_THREADS=1 )?.*python benchmarks/new_user.py|hwc-onnx )",
        "downloads packages and searches for minutes; tests/examples/test_new_user.py runs the script on a small network",
    ),
    ("docs/paper.md", "hwc-onnx (data check|compress) vgg16_cifar10.onnx", "needs CIFAR-10 and a network trained on it"),
    ("docs/paper.md", "hwc-onnx data check resnet50.onnx", "needs ImageNet and a network trained on it"),
    ("docs/pipelines.md", "docker ", "needs docker; tests/examples/test_dockerfile.py builds from what the image copies"),
    ("examples/README.md", r"\.venv/bin/python examples/01_compress.py", "tests/structure/test_examples.py runs it with a tiny network"),
    ("sample_models/README.md", "pip install -e . && python sample_models/train.py", "hours of training"),
    ("benchmarks/zoo/README.md", ".*", OTHERS),
    ("benchmarks/reference/README.md", ".*", OTHERS),
    ("benchmarks/recovery_peers/README.md", ".*", OTHERS),
)
