"""Memory kept between steps, by the page faults that the system counts, in new processes."""

import json
import platform
import subprocess
import sys

import pytest

from llmtutor.fast import memory

with_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep freed memory"
)

PAGES = 16 * 8 * 1024 // 4  # 4 KiB each, of 16 blocks of 8 MiB
STEPS = """
import json, os, resource, sys
from contextlib import suppress

import psutil
import torch

from llmtutor.fast.memory import freed_memory_kept


def faults():  # new pages that the process touches when it fills the blocks and frees them again
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.ones(8 << 20, dtype=torch.uint8) for _ in range(16)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def held():  # MiB
    return psutil.Process().memory_info().rss >> 20


if os.fork() == 0:  # whose heap is as yet that of a new process, too
    print(json.dumps([faults(), faults()]))
    sys.stdout.flush()
    os._exit(0)
os.wait()
with suppress(KeyError), freed_memory_kept():
    before = held()
    torch.ones(128 << 20, dtype=torch.uint8)
    one = held() - before
    kept = [faults() for _ in range(8)]
    many = held() - before
    raise KeyError
print(json.dumps({"kept": kept, "after": faults(), "one": one, "many": many}))
"""


@with_glibc
def test_freed_memory_is_kept_within_and_only_there() -> None:
    """The heap has to grow to its size: with 64-byte alignment, blocks of one size do not all fit
    into the gaps that such blocks left.
    """
    done = subprocess.run([sys.executable, "-c", STEPS], check=True, capture_output=True, text=True)
    usual, found = map(json.loads, done.stdout.splitlines())
    assert min(*usual, found["kept"][0]) > 0.9 * PAGES
    assert found["kept"][1] < 0.6 * PAGES
    assert found["kept"][-1] < 0.01 * PAGES
    assert found["after"] > 0.9 * PAGES  # returned, also behind an error
    # 128 MiB in one block are returned at once, in 16 they are kept.
    assert found["one"] < 16 and found["many"] > 112


def test_another_c_library_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))  # as on macOS and with musl
    monkeypatch.delattr(memory, "ctypes")
    with memory.freed_memory_kept():
        pass
