"""The error kinds of hwc-onnx, each with the exit code that the command line returns for it.

A message has four parts: where (file and field path, or layer and op), what was found, what is allowed, and what to
do next. `assert` is kept for our own bugs.
"""

from __future__ import annotations

from collections.abc import Sequence


class HwcError(Exception):
    """Base of every error that a user can cause or mend; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(HwcError):
    """Contradictory options, a bad configuration file, an unwritable output."""

    exit_code = 2


class ModelError(HwcError):
    """The model was refused."""

    exit_code = 4


class DataError(HwcError):
    """The data was refused."""

    exit_code = 4


class ProfileError(HwcError):
    """The accelerator file was refused; `mistakes` has one message for each, where they are known apart."""

    exit_code = 4

    def __init__(self, message: str, mistakes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.mistakes = tuple(mistakes) or (message,)


class MappingError(HwcError):
    """A stated mapping does not fit the layer or the accelerator."""

    exit_code = 4


class PlanError(HwcError):
    """The compression plan was refused, or does not fit the model."""

    exit_code = 4


class VerifyError(HwcError):
    """A written file does not do what it claims."""

    exit_code = 5


class RuntimeFailure(HwcError):
    """ONNX Runtime, the disk or the operating system failed."""

    exit_code = 1


class SearchError(HwcError):
    """The search could not go on."""

    exit_code = 1
