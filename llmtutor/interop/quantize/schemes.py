"""Chapter 23, export: the formats that have a name, for the command and the studies."""

from collections.abc import Mapping

from llmtutor.interop.quantize.format import Format
from llmtutor.interop.quantize.integers import Integers
from llmtutor.interop.quantize.nf4 import NF4

GROUP = 32
SCHEMES: Mapping[str, Format] = {
    "int8-tensor": Integers(8, share="tensor"),
    "int8": Integers(8, share="row"),
    "int4-row": Integers(4, share="row"),
    "int4": Integers(4, share=GROUP),
    "int4-asymmetric": Integers(4, symmetric=False, share=GROUP),
    "int3": Integers(3, share=GROUP),
    "nf4": NF4(),
    "nf4-double": NF4(double=True),
    "gptq": Integers(4, share=GROUP),
    "gptq-3": Integers(3, share=GROUP),
}
"""By name; those that begin with "gptq" are rounded by ``gptq_model``, the others to nearest."""
CALIBRATED = tuple(name for name in SCHEMES if name.startswith("gptq"))
