"""Real text, GPT-2's files, and pairs of tokenizers that several tests of this room share."""

import os
import sysconfig
from pathlib import Path
from typing import NamedTuple

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from llmtutor.tokenizer import BPETokenizer

END = "<|endoftext|>"


class Pair(NamedTuple):
    """The same tokenizer twice: ours and the Rust library's, each read from files by itself."""

    ours: BPETokenizer
    rust: Tokenizer


def rust_from_files(folder: Path) -> Tokenizer:
    rust = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    rust.add_special_tokens([AddedToken(END, normalized=False)])
    return rust


@pytest.fixture(scope="session")
def mirror() -> Path:
    folder = os.environ.get("LLMTUTOR_MIRROR")
    if not folder:
        pytest.skip("LLMTUTOR_MIRROR names no folder with GPT-2's files")
    path = Path(folder)
    if not (path / "gpt2" / "vocab.json").is_file():
        pytest.skip(f"{path} has no gpt2/vocab.json")
    return path


@pytest.fixture(scope="session")
def code() -> str:
    """About 1 MB of source code: modules of Python's standard library."""
    texts: list[str] = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        texts.append(path.read_text(encoding="utf-8"))
        if sum(map(len, texts)) > 1_000_000:
            break
    return "".join(texts)


@pytest.fixture(scope="session")
def trained(code: str, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("trained")
    ours = BPETokenizer.train(code[:200_000], 1000, [END])
    ours.save(folder)
    return Pair(ours, rust_from_files(folder))


@pytest.fixture(scope="session")
def gpt2(mirror: Path) -> Pair:
    return Pair(BPETokenizer.load(mirror / "gpt2"), rust_from_files(mirror / "gpt2"))
