"""Chapter 02, step 1: bring one file here whole, or say in one line why not.

A download goes to `NAME.part`, survives interruptions (HTTP range requests), is checked, and only
then gets its name. What has been checked once is noted in `NAME.checked.json`, so that the next
call reads a few bytes instead of gigabytes.
"""

import contextlib
import http.client
import json
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from llmtutor.data.locks import alone
from llmtutor.data.places import (
    CHUNK,
    ChecksumError,
    FetchError,
    can_write,
    data_dir,
    find_local,
    log,
    sha256_file,
)
from llmtutor.tokenizer.files import written_whole

ATTEMPTS = 4
PAUSE_SECONDS = 1.0
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class RemoteFile:
    """A file of a corpus: its name here, its address, and what is known of its content."""

    name: str
    """Path below the data folder or the mirror folder, with `/`."""
    url: str | None
    """None if the file is published nowhere: then only a mirror folder has it."""
    size: int | None = None
    """Bytes, if known."""
    sha256: str | None = None
    """64 hex digits; None if nobody has told us: then the first fetch is trusted and recorded."""


@dataclass(frozen=True)
class _Checked:
    """What was found when a file was last read through."""

    sha256: str
    size: int
    mtime_ns: int


def fetch_file(file: RemoteFile) -> Path:
    """Path of a verified copy: the data folder's, else the mirror's, else downloaded now.

    Raises `FetchError` if it cannot be had, `ChecksumError` if what is there is another file.
    """
    if (local := find_local(file.name)) is not None:
        verify(file, local)
        return local
    path = data_dir() / file.name
    if file.url is None:
        raise FetchError(
            f"{file.name} is not published for download; put it by hand at {path}, or name a "
            f"folder that has it in LLMTUTOR_MIRROR (sha256 {file.sha256})"
        )
    if not can_write(path.parent):
        raise FetchError(
            f"{file.name} is not here, and {path.parent} cannot be written; name another folder "
            "in LLMTUTOR_DATA, or one that has the file in LLMTUTOR_MIRROR"
        )
    with alone(path):
        if not path.is_file():
            part = _download(file, file.url, path)
            try:
                verify(file, part)
            except ChecksumError:
                _forget(part)  # a corrupt beginning is no use for a resume
                raise
            part.replace(path)
            _forget(part)
    verify(file, path)
    return path


def verify(file: RemoteFile, path: Path) -> None:
    """Raise `ChecksumError` unless `path` holds `file`; reads it only if it may have changed.

    A file whose sha256 nobody has told us is trusted at first sight, recorded, and held to that.
    Where nothing can be recorded the file is read again at every call.
    """
    note = data_dir() / f"{file.name}.checked.json"
    known = _read_note(note)
    status = path.stat()
    if known and (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns):
        found = known.sha256
    else:
        found = sha256_file(path)
    expected = file.sha256 or (known.sha256 if known else found)
    if found != expected:
        where = "" if file.sha256 else f" (recorded at the first fetch in {note})"
        raise ChecksumError(
            f"{path}: expected sha256 {expected}{where}, found {found}; remove it and fetch "
            "again, or put the right file there by hand"
        )
    if not (known or file.sha256):
        log.warning("%s: no checksum is known; trusting and recording sha256 %s", path, found)
    checked = _Checked(found, status.st_size, status.st_mtime_ns)
    if checked != known:
        with contextlib.suppress(OSError), written_whole(note) as temporary:
            temporary.write_text(json.dumps(asdict(checked)), encoding="utf-8")


def _read_note(note: Path) -> _Checked | None:
    try:
        return _Checked(**json.loads(note.read_text(encoding="utf-8")))
    except OSError:
        return None
    except (ValueError, TypeError) as error:
        raise ChecksumError(f"{note}: not a checksum record; delete it and fetch again") from error


def _validator_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator_file(part).unlink(missing_ok=True)


def _download(file: RemoteFile, url: str, path: Path) -> Path:
    """Download to `path.part`, resuming across dropped connections, and return that path."""
    part = path.with_name(path.name + ".part")
    reason = ""
    for attempt in range(ATTEMPTS):
        time.sleep(attempt * PAUSE_SECONDS)
        try:
            _transfer(file, url, part)
            return part
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 416, 429):
                break
        except _DroppedError as error:
            reason = str(error)
        except OSError as error:  # not the network: the disk is full, the folder is read-only, …
            reason = f"cannot write {part}: {error.strerror}"
            break
    kept = f"; {part.stat().st_size:,} bytes are kept, call again to go on" if part.exists() else ""
    raise FetchError(
        f"could not download {url} ({reason}){kept}; or put the file by hand at {path} "
        f"(sha256 {file.sha256 or 'not known'})"
    )


class _DroppedError(Exception):
    """The connection failed or ended before the file did; asking again may help."""


def _transfer(file: RemoteFile, url: str, part: Path) -> None:
    """One request: go on where `part` ends if the remote file is still the same, else anew."""
    start, validator = _resume_point(url, part)
    try:
        response = _open(url, start, validator)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return  # nothing is missing: only the final rename had not happened
        _forget(part)
        raise
    with response:
        resumed = response.status == 206
        begins = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if resumed and not (begins and _validator(response.headers) in (None, validator)):
            _forget(part)
            raise _DroppedError("the server sent another part than was asked for")
        start = start if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length is not None else file.size
        if file.size is not None and total != file.size:
            raise ChecksumError(
                f"{url}: expected {file.size:,} bytes, the server announces {total:,}; the "
                f"remote file has changed: put the right one by hand at {data_dir() / file.name}"
            )
        note = {"url": url, "validator": _validator(response.headers)}
        _validator_file(part).write_text(json.dumps(note), encoding="utf-8")
        with part.open("ab" if resumed else "wb") as out:
            _copy(response, out, start=start, total=total, name=file.name)
    if total is not None and part.stat().st_size != total:
        _forget(part)
        raise _DroppedError("the size is not as announced; is another process downloading this?")


def _open(url: str, start: int, validator: str | None) -> http.client.HTTPResponse:
    """Ask for `url` from byte `start` on, provided that it is still what `validator` names."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "llmtutor"}
    if start and validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    request = urllib.request.Request(url, headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise _DroppedError(str(reason) or type(reason).__name__) from error


def _resume_point(url: str, part: Path) -> tuple[int, str | None]:
    """Bytes that can be kept, and the validator (entity tag or date) of the file they are of.

    Without a validator nobody can know that the rest belongs to the beginning: start over.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        note = json.loads(_validator_file(part).read_text(encoding="utf-8"))
        if note["url"] == url and note["validator"]:
            return part.stat().st_size, note["validator"]
    return 0, None


def _validator(headers: http.client.HTTPMessage) -> str | None:
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _copy(
    response: http.client.HTTPResponse, out: BinaryIO, *, start: int, total: int | None, name: str
) -> None:
    """Copy the body with a progress bar (shown on a terminal only)."""
    done = start
    bar = tqdm(
        desc=name, initial=start, total=total, unit="B", unit_scale=True, leave=False, disable=None
    )
    with bar:
        while True:
            try:
                chunk = response.read1(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _DroppedError(f"connection lost after {done:,} bytes: {error}") from error
            if not chunk:
                break
            out.write(chunk)
            done += len(chunk)
            bar.update(len(chunk))
    if total is not None and done < total:
        raise _DroppedError(f"connection lost after {done:,} of {total:,} bytes")
