"""Chapter 23, export: weights as one text that a script can hold.

A page that was opened as a file may load scripts and nothing else. So the bytes are deflated and
spelled in base64: of int8 that is about 1.2 characters a weight, since small numbers are more
frequent than large ones.
"""

import base64
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llmtutor.interop.int8 import to_int8

DTYPES = ("int8", "f32")


def pack(tensors: Sequence[Tensor], dtype: str) -> dict[str, Any]:
    """``parts``, which say what follows what, and ``weights``, the text.

    First come all numbers in float32: vectors, and of each matrix in int8 the scales of its rows.
    Then come the rows themselves. With "f32" matrices are numbers like any others.
    """
    floats, small, shapes = [], [], []
    for value in tensors:
        if dtype == "int8" and value.ndim == 2:
            numbers, scale = to_int8(value)
            floats.append(scale)
            small.append(numbers.numpy().tobytes())
            shapes.append([*value.shape])
        else:
            floats.append(value.flatten())
            shapes.append([value.numel(), 0])
    together = torch.cat(floats).numpy().astype("<f4")
    return {
        "parts": {"floats": together.size, "shapes": shapes},
        "weights": packed(together.tobytes() + b"".join(small)),
    }


def packed(data: bytes) -> str:
    """Deflated (zlib, RFC 1950) and in base64."""
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")
