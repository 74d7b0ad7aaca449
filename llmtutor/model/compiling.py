"""Chapter 11, training: a function as one compiled program, fit for the device.

Training compiles its loss, from ids to a number; decoding compiles a token's step (chapter 21).
"""

import os
import shutil
import sys
from collections.abc import Callable
from typing import Any

import torch


def compiled(
    function: Callable[..., Any], device: torch.device, *, dynamic: bool | None = None
) -> Callable[..., Any]:
    """``function`` as one program for ``device``, made at its first call.

    On a CPU what calls the operations is part of it: from Python, calling the small ones takes
    their time, and no other thread gets on in the meantime. ``dynamic`` as in ``torch.compile``:
    True for a program that serves any shape, None to make another one for each, at first.

    Raises:
        ValueError: for a CPU, and no C++ compiler.
    """
    if device.type != "cpu":
        return torch.compile(function, dynamic=dynamic)
    _check_compiler()
    return torch.compile(function, dynamic=dynamic, options={"cpp_wrapper": True})


def _check_compiler() -> None:
    """Raise ``ValueError`` unless there is the C++ compiler that torch.compile calls."""
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX", usual)
    if shutil.which(compiler) is None:
        raise ValueError(
            f"compiling for the CPU needs a C++ compiler, but there is no {compiler!r}: install "
            "one, name another in the environment variable CXX, or go without compiling"
        )
