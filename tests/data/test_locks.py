"""Several at once make one thing: one at a time, and nobody waits for the dead."""

import errno
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from llmtutor.data.locks import alone, if_free


def test_only_one_is_inside_at_a_time_and_nothing_is_left(tmp_path):
    inside, most = threading.Semaphore(0), []

    def enter(_: int) -> None:
        with alone(tmp_path / "thing"):
            inside.release()
            most.append(inside._value)
            inside.acquire()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(40)))
    assert most == [1] * 40
    assert list(tmp_path.iterdir()) == []


def test_who_does_not_want_to_wait_is_told(tmp_path):
    with if_free(tmp_path / "thing") as first:
        with if_free(tmp_path / "thing") as second, if_free(tmp_path / "other") as other:
            assert (first, second, other) == (True, False, True)
        with if_free(tmp_path / "thing") as again:
            assert not again  # whoever found it taken has not taken it away
    with alone(tmp_path / "thing"), if_free(tmp_path / "thing") as free:
        assert not free
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_holds_nobody(tmp_path, caplog):
    code = (
        "import sys, time; from pathlib import Path; from llmtutor.data.locks import alone\n"
        "with alone(Path(sys.argv[1])): print('inside', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "thing")],
        env=os.environ.copy(),
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline().strip() == b"inside"
    entered = threading.Event()

    def enter() -> None:
        with alone(tmp_path / "thing"):
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    deadline = time.monotonic() + 30
    while not caplog.records and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "another process is at work" in caplog.text and not entered.is_set()
    process.kill()
    process.communicate()
    thread.join(30)
    assert entered.is_set()
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def refuse(*_) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with alone(tmp_path / "thing"), alone(tmp_path / "thing"), if_free(tmp_path / "thing") as free:
        assert free
    assert list(tmp_path.iterdir()) == []
