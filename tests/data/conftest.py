"""Fixtures of the data room: an empty data folder, and a file server that can be made to fail."""

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llmtutor.data import fetch


class FileServer:
    """Serves one file at `url`; the attributes say how, and `requests` remembers who asked."""

    def __init__(self) -> None:
        self.body = bytes(range(256)) * 400
        self.etag: str | None = '"version-1"'
        self.last_modified: str | None = None
        self.ranges = True  # answer range requests with 206
        self.obey_if_range = True
        self.announce_length = True
        self.statuses: list[int] = []  # errors for the next requests, one each
        self.cuts: list[int] = []  # bytes to send before hanging up, one for each next request
        self.delay = 0.0  # seconds before each answer
        self.hold_after: int | None = None  # bytes to send before waiting for `go_on`
        self.go_on = threading.Event()
        self.requests: list[dict[str, str | None]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/corpus.txt"

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
                server.requests.append({"Range": asked, "If-Range": condition})
                time.sleep(server.delay)
                if server.statuses:
                    self.send_error(server.statuses.pop(0))
                    return
                same = condition in (server.etag, server.last_modified) or not server.obey_if_range
                start = 0
                if asked and server.ranges and same:
                    start = int(asked.removeprefix("bytes=").removesuffix("-"))
                    if start >= len(server.body):
                        self.send_response(416)
                        self.send_header("Content-Range", f"bytes */{len(server.body)}")
                        self.end_headers()
                        return
                    self.send_response(206)
                    last = len(server.body) - 1
                    self.send_header("Content-Range", f"bytes {start}-{last}/{len(server.body)}")
                else:
                    self.send_response(200)
                self._send_body(server.body[start:])

            def _send_body(self, body: bytes) -> None:
                for name, value in (("ETag", server.etag), ("Last-Modified", server.last_modified)):
                    if value:
                        self.send_header(name, value)
                if server.announce_length:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):  # the client may be gone
                    if server.hold_after is not None:
                        self.wfile.write(body[: server.hold_after])
                        self.wfile.flush()
                        server.go_on.wait(30)
                        return
                    self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

        return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetch, "PAUSE_SECONDS", 0.0)
    server = FileServer()
    yield server
    server.close()


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder that does not exist yet, and no mirror."""
    folder = tmp_path / "data"
    monkeypatch.setenv("LLMTUTOR_DATA", str(folder))
    monkeypatch.delenv("LLMTUTOR_MIRROR", raising=False)
    return folder


def listing(folder: Path) -> list[str]:
    """Names of all files below a folder."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.fixture(name="listing")
def listing_fixture():
    return listing
