"""Real text, published tokenizers, and pairs of tokenizers that several tests share."""

import os
import random
import sysconfig
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from babel import Locale
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from llmtutor.data import FetchError, load_corpus
from llmtutor.data.tokenizers import load_published
from llmtutor.tokenizer import BPETokenizer

END = "<|endoftext|>"
MEGABYTE = 1_000_000

# One sentence with the marks that each script has: accents, cases, numbers, its own full stops.
LANGUAGES = {
    "de": "Größere Wörterbücher sparen Platz, „übermäßig“ lange Listen kosten 3,50 €.",
    "fr": "L'été dernier, « où allâtes-vous » ? À Nîmes, c'était 12 fois plus chaud !",
    "ru": "Съешь же ещё этих мягких французских булок, да выпей чаю — всего 1 250 рублей №5.",
    "ar": "السَّلامُ عليكم، كيف حالكم اليوم؟ قرأتُ ١٢٣ كتابًا في المكتبة الكبيرة.",
    "hi": "क्या आप हिन्दी में लिख सकते हैं? मेरे पास २५ किताबें और १०० क़लम हैं।",
    "zh": "今天天气很好，我们去公园散步吧！图书馆里有3600本书，“你看过几本？”",
    "ja": "吾輩は猫である。名前はまだ無い。カタカナとひらがな、２０２４年の東京タワー。",
}


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
        pytest.skip("LLMTUTOR_MIRROR names no folder with GPT-2's merges and recorded ids")
    path = Path(folder)
    if not (path / "gpt2" / "merges.txt").is_file():
        pytest.skip(f"{path} has no gpt2/merges.txt")
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
def mixed(code: str) -> str:
    """1 MB of UTF-8: Shakespeare, source code, numbers, and seven languages in equal parts."""
    rng = random.Random(0)
    numbers = (
        f"{rng.randrange(10 ** rng.randrange(1, 19)):,} {rng.random()}\n" for _ in range(9999)
    )
    parts = [_bytes(load_corpus("shakespeare").valid, 300_000), _bytes(code, 250_000)]
    parts.append(_bytes("".join(numbers), 100_000))
    parts += [_bytes(_paragraphs(language, rng), 49_990) for language in LANGUAGES]
    text = "\n".join(parts)
    return text + "." * (MEGABYTE - len(text.encode("utf-8")))


def _bytes(text: str, n: int) -> str:
    """The beginning of a text, of about n bytes."""
    data = text.encode("utf-8")
    assert len(data) >= n
    return data[:n].decode("utf-8", errors="ignore")


def _paragraphs(language: str, rng: random.Random) -> str:
    """Our sentence, its words in other orders, and names of the world's countries and tongues."""
    sentence, locale = LANGUAGES[language], Locale(language)
    names = [
        *locale.territories.values(),
        *locale.languages.values(),
        *locale.months["format"]["wide"].values(),
    ]
    lines: list[str] = []
    while sum(map(len, lines)) < 50_000:
        words = [*sentence.split(" "), *rng.sample(names, 12)]
        lines += [sentence, " ".join(rng.sample(words, len(words)))]
    return "\n".join(lines)


@pytest.fixture(scope="session")
def published() -> Callable[[str], BPETokenizer]:
    """A published tokenizer by name; skips where its file can be had from nowhere."""

    @cache
    def load(name: str) -> BPETokenizer:
        try:
            return load_published(name)
        except FetchError as error:
            pytest.skip(f"no file of {name}: {error}")

    return load


@pytest.fixture(scope="session")
def gpt2(published: Callable[[str], BPETokenizer], tmp_path_factory) -> Pair:
    folder = tmp_path_factory.mktemp("gpt2")
    ours = published("gpt2")
    ours.save(folder)
    return Pair(ours, rust_from_files(folder))
