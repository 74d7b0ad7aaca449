"""Chapter 01, step 6: GPT-2's two files, and files that are written whole or not at all."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

Merge = tuple[bytes, bytes]

VOCAB_FILE = "vocab.json"
MERGES_FILE = "merges.txt"


def _byte_alphabet() -> dict[int, str]:
    """One printable character for each byte, as OpenAI chose them for GPT-2's files.

    A byte that is a printable Latin-1 character stands for itself, the other 68 are moved, in
    order, to the characters from U+0100 on. So a file shows the space as ``Ġ``.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + i) for i, byte in enumerate(others)
    }


_TO_PRINTABLE = _byte_alphabet()
_TO_BYTE = {character: byte for byte, character in _TO_PRINTABLE.items()}


def printable(token: bytes) -> str:
    """A token's bytes as characters that show on every screen.

    >>> printable(" é\\n".encode())
    'ĠÃ©Ċ'
    """
    return "".join(map(_TO_PRINTABLE.__getitem__, token))


def is_printable(character: str) -> bool:
    """Whether a character stands for a byte in GPT-2's files."""
    return character in _TO_BYTE


def unprintable(name: str) -> bytes:
    """The bytes of a token as GPT-2's files name it; `ValueError` if it is no such name.

    >>> unprintable("ĠÃ©Ċ").decode()
    ' é\\n'
    """
    try:
        return bytes(map(_TO_BYTE.__getitem__, name))
    except KeyError as error:
        raise ValueError(
            f"expected a token spelled with GPT-2's 256 byte characters, found {name!r}, where "
            f"{error.args[0]!r} stands for no byte"
        ) from None


def made_by(merges: Iterable[Merge]) -> dict[str, bytes]:
    """The ordinary tokens, bytes and what merges make of them, by the names they have in files."""
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += [left + right for left, right in merges]
    return {printable(token): token for token in tokens}


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends well and else is removed.

    Its name is its own, so that several processes may write the same file; the last one stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(
            f"{path.parent}: expected a folder to write to, found a file, or a place below one; "
            "name another folder"
        ) from None
    temporary = path.with_name(f".{uuid4().hex}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename == os.fspath(temporary):
            error.filename = os.fspath(path)  # the name that the caller knows
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_files(folder: Path, contents: Mapping[str, str | bytes]) -> None:
    """Write files into a folder, made if need be; no file is touched before all are written."""
    with ExitStack() as stack:
        for name, content in contents.items():
            data = content.encode("utf-8") if isinstance(content, str) else content
            stack.enter_context(written_whole(folder / name)).write_bytes(data)


def read_text(path: Path) -> str:
    """A file's text, line ends untouched; `ValueError` naming the file if it is not UTF-8."""
    return utf8(path.read_bytes(), path)


def utf8(data: bytes, where: object) -> str:
    """The text of bytes; `ValueError` naming where they come from if they are not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: expected UTF-8 text, found byte 0x{data[error.start]:02x} at "
            f"{error.start:,}; convert it to UTF-8 first, if it is text"
        ) from None


def read_json(path: Path) -> dict[str, object]:
    """The JSON object in a file; `ValueError` if it is malformed or repeats a key."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        table = dict(pairs)
        if len(table) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in table if keys.count(key) > 1)
            raise ValueError(f"the key {twice!r} comes twice")
        return table

    try:
        table = json.loads(read_text(path), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected a JSON object, but {error}; make it anew") from None
    if not isinstance(table, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(table).__name__}")
    return table


def read_vocab(path: Path) -> dict[str, int]:
    """``vocab.json`` as it stands: the token's printable name → its id."""
    vocab: dict[str, int] = {}
    for name, id in read_json(path).items():
        if not isinstance(id, int) or isinstance(id, bool):
            raise ValueError(f"{path}: expected a whole number as id of {name!r}, found {id!r}")
        vocab[name] = id
    return vocab


def read_merges(path: Path) -> list[Merge]:
    """``merges.txt``: a version line, then the two parts of one merge on each line, in order."""
    lines = [line.removesuffix("\r") for line in read_text(path).split("\n")]
    merges: list[Merge] = []
    for number, line in enumerate(lines, start=1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        parts = line.split(" ")
        if len(parts) != 2 or not all(parts):
            raise ValueError(
                f"{path}, line {number}: expected two tokens and one space between them, "
                f"found {line!r}"
            )
        try:
            merges.append((unprintable(parts[0]), unprintable(parts[1])))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    return merges


def merges_text(merges: Sequence[Merge]) -> str:
    """The content of ``merges.txt``."""
    lines = [f"{printable(left)} {printable(right)}\n" for left, right in merges]
    return "#version: 0.2\n" + "".join(lines)
