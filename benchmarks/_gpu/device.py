"""What the parts share: the name of the device, waiting for it, what its arithmetic could do."""

import os
import platform

import torch

PEAKS = {"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12}
"""Operations a second in bfloat16, dense, by the makers' sheets (the SXM cards)."""


def name_of(device: str) -> str:
    """As its maker calls it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device} ({platform.processor() or platform.machine()})"


def in_one_order() -> None:
    """Let sums on a GPU be taken in one order, so that a run can be repeated to the bit.

    Call it before the GPU is touched.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True)


def wait_for(device: str) -> None:
    """Until the device has done what it was told to do."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def peak_flops(device: str) -> float | None:
    """Operations a second in bfloat16; None for a device whose sheet is not known here."""
    return next((peak for card, peak in PEAKS.items() if card in name_of(device)), None)
