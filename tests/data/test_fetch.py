"""Downloads that are cut, changed, refused, repeated: the file is right or it is not there."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from llmtutor.data import ChecksumError, FetchError
from llmtutor.data import fetch as fetch_module
from llmtutor.data.fetch import RemoteFile, fetch_file

WHOLE = ["corpus.txt", "corpus.txt.checked.json"]


@pytest.fixture
def file(server, data_folder):
    return RemoteFile("corpus.txt", server.url, len(server.body), server.sha256())


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_download_is_the_remote_file_and_a_second_call_asks_nobody(
    file, server, data_folder, listing
):
    path = fetch_file(file)
    assert path.read_bytes() == server.body
    assert listing(data_folder) == WHOLE
    assert len(server.requests) == 1
    assert fetch_file(file) == path
    assert len(server.requests) == 1


def test_the_second_call_does_not_read_the_file_again(file, monkeypatch):
    path = fetch_file(file)
    monkeypatch.setattr(fetch_module, "sha256_file", lambda _: pytest.fail("read again"))
    assert fetch_file(file) == path


def test_a_connection_that_breaks_twice_is_resumed_each_time(file, server, data_folder, listing):
    server.cuts = [1_000, 5_000]
    assert fetch_file(file).read_bytes() == server.body
    assert [r["Range"] for r in server.requests] == [None, "bytes=1000-", "bytes=6000-"]
    assert server.requests[1]["If-Range"] == server.etag
    assert listing(data_folder) == WHOLE


def test_a_server_that_keeps_dying_leaves_a_part_that_the_next_call_completes(
    file, server, data_folder, listing
):
    server.cuts = [100] * 20
    with pytest.raises(FetchError) as error:
        fetch_file(file)
    message = one_line(error)
    assert file.url in message and file.sha256 in message and str(data_folder) in message
    assert "400 bytes are kept" in message  # four attempts
    assert listing(data_folder) == ["corpus.txt.part", "corpus.txt.part.json"]
    server.cuts, server.requests = [], []
    assert fetch_file(file).read_bytes() == server.body
    assert server.requests[0]["Range"] == "bytes=400-"
    assert listing(data_folder) == WHOLE


def test_a_killed_process_leaves_no_file_and_the_next_one_resumes(
    file, server, data_folder, listing
):
    server.hold_after = 70_000
    code = (
        "import sys; from llmtutor.data.fetch import RemoteFile, fetch_file;"
        "fetch_file(RemoteFile('corpus.txt', sys.argv[1]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, server.url], env=os.environ.copy())
    part = data_folder / "corpus.txt.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = part.stat().st_size
    assert 0 < kept < len(server.body)
    assert "corpus.txt" not in listing(data_folder)
    server.hold_after = None
    server.go_on.set()
    assert fetch_file(file).read_bytes() == server.body
    assert server.requests[-1]["Range"] == f"bytes={kept}-"
    assert listing(data_folder) == WHOLE


@pytest.mark.parametrize("obey_if_range", [True, False])
def test_a_remote_file_that_changed_is_not_glued_to_the_old_part(
    server, data_folder, listing, obey_if_range
):
    file = RemoteFile("corpus.txt", server.url)  # no checksum would notice
    server.cuts = [1_000] * 4
    server.ranges = False
    with pytest.raises(FetchError):
        fetch_file(file)
    server.cuts, server.ranges, server.obey_if_range = [], True, obey_if_range
    server.body, server.etag = server.body[::-1], '"version-2"'
    assert fetch_file(file).read_bytes() == server.body
    assert listing(data_folder) == WHOLE


def test_a_server_that_ignores_ranges_is_read_from_the_start(file, server):
    server.ranges = False
    server.cuts = [1_000]
    assert fetch_file(file).read_bytes() == server.body
    assert server.requests[1]["Range"] == "bytes=1000-"


@pytest.mark.parametrize(
    ("etag", "date", "expected"),
    [
        (None, None, None),
        ('W/"weak"', None, None),
        ('W/"weak"', "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 GMT"),
        ('"strong"', "Wed, 21 Oct 2015 07:28:00 GMT", '"strong"'),
    ],
)
def test_a_part_is_resumed_only_if_the_version_can_be_named(file, server, etag, date, expected):
    server.etag, server.last_modified, server.cuts = etag, date, [1_000]
    assert fetch_file(file).read_bytes() == server.body
    assert server.requests[1]["If-Range"] == expected
    assert server.requests[1]["Range"] == ("bytes=1000-" if expected else None)


def test_a_part_of_another_address_is_thrown_away(file, server):
    server.cuts = [1_000] * 4
    server.ranges = False
    with pytest.raises(FetchError):
        fetch_file(replace(file, url=server.url + "?other"))
    server.cuts, server.requests = [], []
    assert fetch_file(file).read_bytes() == server.body
    assert server.requests[0]["Range"] is None


def test_a_part_that_is_complete_needs_only_its_name(file, server, data_folder, listing):
    server.cuts = [len(server.body) - 1] * 4
    server.ranges = False
    with pytest.raises(FetchError):
        fetch_file(file)
    with (data_folder / "corpus.txt.part").open("ab") as part:
        part.write(server.body[-1:])
    server.ranges, server.cuts, server.requests = True, [], []
    assert fetch_file(file).read_bytes() == server.body
    assert len(server.requests) == 1  # answered with 416: nothing is missing
    assert listing(data_folder) == WHOLE


def test_a_part_that_is_too_long_is_thrown_away(file, server, data_folder):
    data_folder.mkdir()
    (data_folder / "corpus.txt.part").write_bytes(b"x" * (len(server.body) + 5))
    note = {"url": server.url, "validator": server.etag}
    (data_folder / "corpus.txt.part.json").write_text(json.dumps(note), encoding="utf-8")
    assert fetch_file(file).read_bytes() == server.body


def test_a_damaged_part_is_noticed_by_the_checksum_and_not_kept(file, server, data_folder, listing):
    server.cuts = [1_000] * 4
    server.ranges = False
    with pytest.raises(FetchError):
        fetch_file(file)
    (data_folder / "corpus.txt.part").write_bytes(b"x" * 1_000)
    server.cuts, server.ranges = [], True
    with pytest.raises(ChecksumError):
        fetch_file(file)
    assert listing(data_folder) == []
    assert fetch_file(file).read_bytes() == server.body


def test_a_wrong_checksum_leaves_nothing(file, server, data_folder, listing):
    wanted = replace(file, sha256="0" * 64)
    with pytest.raises(ChecksumError) as error:
        fetch_file(wanted)
    message = one_line(error)
    assert "0" * 64 in message and server.sha256() in message and "corpus.txt" in message
    assert listing(data_folder) == []


def test_a_truncated_body_without_announced_length_is_noticed(file, server, data_folder, listing):
    server.announce_length = False
    server.cuts = [1_000] * 20
    server.ranges = False
    with pytest.raises(FetchError):  # the registry knows the size
        fetch_file(file)
    server.cuts = [1_000] * 20
    with pytest.raises(ChecksumError):  # only the checksum knows
        fetch_file(replace(file, size=None))
    assert listing(data_folder) == []


def test_another_announced_size_is_refused_before_anything_is_written(
    file, server, data_folder, listing
):
    with pytest.raises(ChecksumError, match=r"expected 5 bytes, the server announces 102,400"):
        fetch_file(replace(file, size=5))
    assert listing(data_folder) == []


def test_404_is_reported_at_once(file, server, data_folder, listing):
    server.statuses = [404] * 9
    with pytest.raises(FetchError) as error:
        fetch_file(file)
    message = one_line(error)
    assert "HTTP 404" in message and file.sha256 in message
    assert str(data_folder / "corpus.txt") in message
    assert len(server.requests) == 1
    assert listing(data_folder) == []


def test_a_server_error_is_asked_again(file, server):
    server.statuses = [503, 429, 500]
    assert fetch_file(file).read_bytes() == server.body
    assert len(server.requests) == 4


def test_no_server_is_one_clear_line(file, server, data_folder, listing):
    server.close()
    with pytest.raises(FetchError) as error:
        fetch_file(file)
    assert file.sha256 in one_line(error)
    assert listing(data_folder) == []


def test_an_unknown_checksum_is_trusted_once_and_the_user_is_told(server, data_folder, caplog):
    file = RemoteFile("corpus.txt", server.url)
    path = fetch_file(file)
    assert [server.sha256() in r.getMessage() for r in caplog.records] == [True]
    fetch_file(file)
    assert len(caplog.records) == 1
    path.write_bytes(server.body[:-1] + b"!")
    with pytest.raises(ChecksumError, match=r"recorded at the first fetch"):
        fetch_file(file)
    path.unlink()
    server.body = server.body[::-1]
    with pytest.raises(ChecksumError):  # a new download is held to the record too
        fetch_file(file)


def test_a_record_that_is_no_record_is_an_error(file, data_folder):
    fetch_file(file)
    (data_folder / "corpus.txt.checked.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ChecksumError, match="not a checksum record"):
        fetch_file(file)


def test_a_file_put_here_by_hand_is_verified_and_used(file, server, data_folder):
    data_folder.mkdir()
    path = data_folder / "corpus.txt"
    path.write_bytes(server.body)
    assert fetch_file(file) == path
    assert server.requests == []
    path.write_bytes(b"something else")
    with pytest.raises(ChecksumError, match="expected sha256"):
        fetch_file(file)
    assert server.requests == []


def test_a_changed_file_is_read_again_even_if_its_size_is_the_same(file, server):
    path = fetch_file(file)
    path.write_bytes(server.body[::-1])
    os.utime(path, ns=(0, 0))
    with pytest.raises(ChecksumError):
        fetch_file(file)


def test_the_mirror_is_used_before_the_network_and_only_read(
    file, server, data_folder, tmp_path, monkeypatch, listing
):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "corpus.txt").write_bytes(server.body)
    monkeypatch.setenv("LLMTUTOR_MIRROR", str(mirror))
    assert fetch_file(file) == mirror / "corpus.txt"
    assert server.requests == []
    assert listing(mirror) == ["corpus.txt"]
    (mirror / "corpus.txt").write_bytes(b"other")
    with pytest.raises(ChecksumError, match="mirror"):
        fetch_file(file)
    assert server.requests == []


def test_several_at_once_download_once(file, server, data_folder, listing):
    server.delay = 0.2
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(fetch_file, [file] * 4))
    assert paths == [data_folder / "corpus.txt"] * 4
    assert paths[0].read_bytes() == server.body
    assert len(server.requests) == 1
    assert listing(data_folder) == WHOLE


def test_a_data_folder_that_cannot_be_written_needs_no_note_but_gets_no_download(
    file, server, tmp_path, monkeypatch
):
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("LLMTUTOR_MIRROR", str(tmp_path / "mirror"))
    (tmp_path / "no folder").write_bytes(b"")
    monkeypatch.setenv("LLMTUTOR_DATA", str(tmp_path / "no folder" / "data"))
    with pytest.raises(FetchError, match=r"cannot be written; .* LLMTUTOR_DATA") as error:
        fetch_file(file)
    assert str(tmp_path / "no folder" / "data") in one_line(error)
    (tmp_path / "mirror" / "corpus.txt").write_bytes(server.body)
    assert fetch_file(file) == fetch_file(file) == tmp_path / "mirror" / "corpus.txt"


def test_a_mirror_that_is_not_there_is_an_error_where_it_is_needed(
    file, server, data_folder, tmp_path, monkeypatch
):
    fetch_file(file)
    monkeypatch.setenv("LLMTUTOR_MIRROR", str(tmp_path / "mirrror"))
    assert fetch_file(file) == data_folder / "corpus.txt"
    (data_folder / "corpus.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"LLMTUTOR_MIRROR names .*mirrror, .* unset it"):
        fetch_file(file)


def test_a_file_that_is_published_nowhere_says_so(file, data_folder):
    with pytest.raises(FetchError, match=r"not published.*LLMTUTOR_MIRROR") as error:
        fetch_file(replace(file, url=None))
    assert file.sha256 in one_line(error)


def test_a_full_disk_is_reported_and_is_not_a_network_error(file, server, data_folder, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch_module, "_copy", full)
    with pytest.raises(FetchError, match=r"cannot write .*No space left"):
        fetch_file(file)
    assert len(server.requests) == 1


def test_an_interrupt_keeps_the_part_for_the_next_call(file, server, data_folder, monkeypatch):
    copy = fetch_module._copy

    def interrupted(response, out, **kwargs):
        out.write(response.read1(500))
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch_module, "_copy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch_file(file)
    assert not (data_folder / "corpus.txt").exists()
    kept = (data_folder / "corpus.txt.part").stat().st_size
    assert kept > 0
    monkeypatch.setattr(fetch_module, "_copy", copy)
    assert fetch_file(file).read_bytes() == server.body
    assert server.requests[-1]["Range"] == f"bytes={kept}-"
