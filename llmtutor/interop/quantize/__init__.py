"""Chapter 23, export: models in fewer bits, from scratch.

``groups`` says who shares a scale, ``integers`` and ``nf4`` which values there are, ``packing`` how
codes lie in bytes, ``gptq`` how to round for what a layer reads. ``linear`` and ``cache`` hold what
is packed, ``apply`` and ``calibrate`` do all that to a model, ``files`` keeps it.
"""

from llmtutor.interop.quantize.apply import (
    bits_per_weight,
    packed,
    round_model,
    stored_bytes,
    unpacked,
)
from llmtutor.interop.quantize.calibrate import gptq_model
from llmtutor.interop.quantize.files import load_quantized, save_quantized
from llmtutor.interop.quantize.format import nearest
from llmtutor.interop.quantize.integers import Integers
from llmtutor.interop.quantize.nf4 import NF4
from llmtutor.interop.quantize.schemes import CALIBRATED, SCHEMES

__all__ = [
    "CALIBRATED",
    "NF4",
    "SCHEMES",
    "Integers",
    "bits_per_weight",
    "gptq_model",
    "load_quantized",
    "nearest",
    "packed",
    "round_model",
    "save_quantized",
    "stored_bytes",
    "unpacked",
]
