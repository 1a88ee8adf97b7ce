"""`hwc-onnx completion`: a script with which a shell completes commands, options, names and files."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .settings import Settings, shared_options

PROGRAM = "hwc-onnx"
VARIABLE = "_HWC_ONNX_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="A script that completes commands in a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
@shared_options
@click.pass_context
def completion(ctx: click.Context, /, settings: Settings, shell: str) -> None:
    """Print the script with which SHELL completes commands, options, accelerators and files of hwc-onnx.

    It asks hwc-onnx itself, so that it never goes out of date.

    \b
    Examples:
      eval "$(hwc-onnx completion bash)"
      hwc-onnx completion bash > ~/.local/share/bash-completion/completions/hwc-onnx
      hwc-onnx completion zsh > ~/.zfunc/_hwc-onnx
      hwc-onnx completion fish > ~/.config/fish/completions/hwc-onnx.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    script = found(ctx.find_root().command, {}, PROGRAM, VARIABLE).source().rstrip("\n")
    settings.show({"schema": 1, "shell": shell, "script": script}, lambda: [script])
