"""For speed alone: what one step frees, the next one takes again."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# Names and numbers of malloc.h in glibc.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 32 << 20
"""Bytes of the largest block for which glibc lets the heap be used."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within it, the process keeps the memory that it frees.

    A step on the CPU frees its activations, and the C library returns much of them to the system.
    The next step asks for as much again, and gets it page by page: for each 4 KiB that are touched
    for the first time the system stops the program and writes zeros. Blocks over 32 MiB are
    returned all the same. Only glibc, the C library of most Linux systems, is told so.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)  # smaller blocks come from the heap
    libc.mallopt(M_TRIM_THRESHOLD, -1)  # and the heap never gets smaller
    try:
        yield
    finally:
        # To this glibc raises it by itself where large blocks are freed.
        libc.mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_KEPT)
        libc.malloc_trim(0)
