"""Chapter 02, step 1: one process at a time, where several could make the same file.

`torchrun` starts many processes that all find the same file missing. One of them makes it, the
others wait and then find it there. A lock of the operating system ends with the process that holds
it, so one that was killed keeps nobody waiting.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from llmtutor.data.places import log

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What a file system answers that has no locks, such as some network drives."""


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Make what belongs at `path` inside this block; other processes wait before theirs.

    Look again inside the block: another process may have made it meanwhile. The lock is a file
    `NAME.lock` in the same folder, which is gone afterwards. A file system without locks makes
    nobody wait. Raises `OSError` if the folder cannot be written.
    """
    with _held(path, wait=True):
        yield


@contextmanager
def if_free(path: Path) -> Iterator[bool]:
    """Whether no other process is in such a block for `path`, or in `alone`; nobody waits.

    Where it is True, the others find it taken until this block ends. A file system without locks
    finds everything free. Raises `OSError` as `alone` does.
    """
    with _held(path, wait=False) as held:
        yield held


@contextmanager
def _held(path: Path, *, wait: bool) -> Iterator[bool]:
    file = path.with_name(f"{path.name}.lock")
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            yield False
            return
        log.warning("%s: another process is at work; waiting for it", file)
        lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    try:
        yield True
    finally:
        # Removed before it is let go, so that who gets it next can see that it is no longer there.
        with suppress(OSError):  # Windows lets nobody remove a file in use: release does it there
            file.unlink()
        lock.release()
