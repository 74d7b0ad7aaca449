"""Chapter 23, export: whole numbers of a few bits side by side, so that no bit is wasted.

The smallest thing that memory can hold is a byte. A number of 4 bits in a byte of its own would
leave half of it empty.
"""

import torch
from jaxtyping import UInt8
from torch import Tensor

from llmtutor.checks import check_integer


def pack(codes: UInt8[Tensor, "*rows n"], bits: int) -> UInt8[Tensor, "*rows bytes"]:
    """Codes from 0 to 2^bits − 1, the lowest bits of the first byte first: ⌈n · bits / 8⌉ bytes.

    Of 4 bits there are two in a byte, and the first is the lower half. What is left of the last
    byte is 0.

    >>> pack(torch.tensor([3, 15, 1], dtype=torch.uint8), 4)  # 3 + 16 · 15, then 1
    tensor([243,   1], dtype=torch.uint8)

    Raises:
        ValueError: bits outside 1 … 8, a code that needs more.
    """
    check_bits(bits)
    if codes.numel() and int(codes.max()) >> bits:
        raise ValueError(f"expected codes below {2**bits} for {bits} bits, got {int(codes.max())}")
    stream = ((codes[..., None] >> _places(bits)) & 1).flatten(-2)
    stream = torch.nn.functional.pad(stream, (0, -stream.shape[-1] % 8))
    return (stream.unflatten(-1, (-1, 8)) << _places(8)).sum(-1, dtype=torch.uint8)


def unpack(packed: UInt8[Tensor, "*rows bytes"], bits: int, n: int) -> UInt8[Tensor, "*rows n"]:
    """The first ``n`` codes again.

    >>> unpack(torch.tensor([243, 1], dtype=torch.uint8), 4, 3)
    tensor([ 3, 15,  1], dtype=torch.uint8)

    Raises:
        ValueError: bits outside 1 … 8, fewer or more bytes than ``n`` codes take.
    """
    check_bits(bits)
    if packed.shape[-1] != packed_bytes(n, bits):
        raise ValueError(
            f"expected {packed_bytes(n, bits)} bytes for {n} codes of {bits} bits, got "
            f"{packed.shape[-1]}"
        )
    stream = ((packed[..., None] >> _places(8)) & 1).flatten(-2)[..., : n * bits]
    return (stream.unflatten(-1, (n, bits)) << _places(bits)).sum(-1, dtype=torch.uint8)


def packed_bytes(n: int, bits: int) -> int:
    """Bytes that ``n`` codes take.

    >>> packed_bytes(3, 4), packed_bytes(8, 3)
    (2, 3)
    """
    return -(-n * bits // 8)


def check_bits(bits: int) -> None:
    """Raise ``ValueError`` unless ``bits`` is a whole number from 1 to 8."""
    if check_integer("bits", bits, 1) > 8:
        raise ValueError(f"bits must lie in 1 … 8, got {bits}")


def _places(bits: int) -> Tensor:
    return torch.arange(bits, dtype=torch.uint8)
