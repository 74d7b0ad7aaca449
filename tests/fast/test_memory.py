"""Memory kept between steps, by the page faults that the system counts, in new processes."""

import platform
import subprocess
import sys

import pytest

from llmtutor.train import memory

with_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep freed memory"
)

PAGES = 16 * 8 * 1024 // 4  # 4 KiB each, of 16 blocks of 8 MiB
STEPS = """
import resource
from contextlib import nullcontext, suppress

import torch

from llmtutor.fast.memory import freed_memory_kept


def faults():  # new pages that the process touches when it fills the blocks and frees them again
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.ones(8 << 20, dtype=torch.uint8) for _ in range(16)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

"""


def counted(script: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", STEPS + script], check=True, stdout=subprocess.PIPE, text=True
    )
    return [int(word) for word in done.stdout.split()]


@with_glibc
def test_only_the_first_steps_touch_new_pages() -> None:
    """The heap has to grow to its size: with 64-byte alignment, blocks of one size do not all fit
    into the gaps that such blocks left.
    """
    usual = counted("with nullcontext(): print(faults(), faults())")
    kept = counted("with freed_memory_kept(): print(*(faults() for _ in range(8)))")
    assert min(*usual, kept[0]) > 0.9 * PAGES
    assert kept[1] < 0.6 * PAGES
    assert kept[-1] < 0.01 * PAGES


@with_glibc
def test_afterwards_all_memory_is_returned() -> None:
    script = "with suppress(KeyError), freed_memory_kept(): faults(); raise KeyError\n"
    (after,) = counted(script + "print(faults())")
    assert after > 0.9 * PAGES


@with_glibc
def test_a_larger_block_is_returned_at_once() -> None:
    """128 MiB in one block, and in 16: what the process still has of it, in MiB."""
    script = """
import psutil
def held(): return psutil.Process().memory_info().rss >> 20
with freed_memory_kept():
    before = held()
    torch.ones(128 << 20, dtype=torch.uint8)
    print(held() - before)
    faults()
    print(held() - before)
"""
    one, many = counted(script)
    assert one < 16 and many > 112


def test_another_c_library_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))  # as on macOS and with musl
    monkeypatch.delattr(memory, "ctypes")
    with memory.freed_memory_kept():
        pass
