"""Chapter 02, step 1: one process at a time, where several could make the same file.

`torchrun` starts many processes that all find the same file missing. One of them makes it, the
others wait and then find it there. A lock of the operating system ends with the process that holds
it, so one that was killed keeps nobody waiting.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from llmtutor.data.places import log

PAUSE_SECONDS = 0.1

if sys.platform == "win32":
    import msvcrt

    _Taken = PermissionError

    def _acquire(file: IO[bytes]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    _Taken = BlockingIOError

    def _acquire(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Make what belongs at `path` inside this block; other processes wait before theirs.

    Look again inside the block: another process may have made it meanwhile. The lock is a file
    `NAME.lock` in the same folder, which is gone afterwards. A file system without locks makes
    nobody wait. Raises `OSError` if the folder cannot be written.
    """
    lock = path.with_name(f"{path.name}.lock")
    file = _hold(lock)
    try:
        yield
    finally:
        # Removed before it is let go, so that who gets it next can see that it is no longer there.
        # Windows does not remove a file in use: there it stays.
        with contextlib.suppress(OSError):
            lock.unlink()
        file.close()


def _hold(lock: Path) -> IO[bytes]:
    told = False
    while True:
        file = lock.open("ab")
        try:
            _acquire(file)
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file
        except _Taken:
            if not told:
                log.warning("%s: another process is at work; waiting for it", lock)
            told = True
            time.sleep(PAUSE_SECONDS)
        except FileNotFoundError:
            pass  # removed by the process that held it before us
        except OSError:
            return file  # no locks here
        file.close()
