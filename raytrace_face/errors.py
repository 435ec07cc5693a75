"""Errors a person can act on.

Every message names the value, the rule it breaks and what to do next. The command line prints the message
on one line and exits with `exit_code`; the Python API raises the exception itself.
"""


class RaytraceFaceError(Exception):
    """Base of all errors raised on purpose by this package."""

    exit_code = 2


class InputError(RaytraceFaceError):
    """The photo, a file or an option cannot be used as it is."""


class NoFaceError(InputError):
    """No usable face was found in the photo."""


class OutputError(RaytraceFaceError):
    """The result cannot be written where it was asked for."""


class MachineError(RaytraceFaceError):
    """The machine lacks something the tracer needs (libLLVM, a CUDA driver, memory)."""


class ModelError(RaytraceFaceError):
    """A face model or network file is damaged or does not fit."""


class TrainingError(RaytraceFaceError):
    """Training went wrong: a loss that is no number, or light that has died."""
