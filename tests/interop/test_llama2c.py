"""stories260K writes what llama2.c writes; a file that is not whole is refused."""

import json
import os
import re
import struct
from collections.abc import Callable
from heapq import heappush
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from llmtutor.data.places import ChecksumError, sha256_file
from llmtutor.data.readers import read_separated
from llmtutor.evaluate.perplexity import evaluate_loss
from llmtutor.interop import llama2c_tokenizer
from llmtutor.interop.hf import save_hf
from llmtutor.interop.llama2c import (
    TOKENIZER,
    WEIGHTS,
    load_llama2c,
    load_stories260k,
    save_llama2c,
)
from llmtutor.interop.llama2c_tokenizer import BOS, Llama2cTokenizer
from llmtutor.layers.positions import RopeConfig
from llmtutor.model.config import ModelConfig
from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer.base import Tokenizer

SIZES = {
    "dim": 8,
    "hidden_dim": 12,
    "n_layers": 2,
    "n_heads": 2,
    "n_kv_heads": 1,
    "vocab_size": 5,
    "seq_len": 6,
}
N_NUMBERS = 40 + 2 * (8 + 64 + 32 + 32 + 64 + 8 + 3 * 96) + 8 + 2 * 12


def mirror(name: str) -> Path:
    path = Path(os.environ.get("LLMTUTOR_MIRROR", "")) / name
    if not path.is_file():
        pytest.skip(f"{name} is not in LLMTUTOR_MIRROR")
    return path


@pytest.fixture(scope="module")
def stories() -> tuple[Transformer, Llama2cTokenizer]:
    mirror(WEIGHTS.name), mirror(TOKENIZER.name)
    return load_stories260k()


def content(changes: dict[str, int] | None = None, *, base: float = 10000.0) -> bytes:
    """A small file by hand: matrices hold 0, 1, 2, … in units of 1/100, in the file's order."""
    tables = np.arange(6)[:, None] * base ** (-np.arange(2) / 2)
    n_weights = N_NUMBERS - 24
    numbers = [np.arange(n_weights) / 100, np.cos(tables).ravel(), np.sin(tables).ravel()]
    if changes and changes.get("vocab_size", 0) < 0:
        numbers.append(np.full(40, -1.0))
    header = struct.pack("<7i", *{**SIZES, **(changes or {})}.values())
    return header + np.concatenate(numbers).astype("<f4").tobytes()


# The published model ------------------------------------------------------------------------------


def test_greedy_writes_the_200_tokens_that_llama2c_writes(stories):
    model, tokenizer = stories
    expected = json.loads(mirror("stories260K/expected_greedy_200.json").read_text("utf-8"))
    ids = [BOS]
    with torch.no_grad():
        for _ in range(200):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    assert ids == expected["token_ids"]
    assert tokenizer.decode(ids) == expected["text"]
    assert tokenizer.encode(expected["text"]) == ids[1:]


@pytest.mark.parametrize(
    ("name", "nats"), [("tinystories_valid.txt", 1.266), ("tinystories_v1_sample.txt", 1.331)]
)
def test_loss_on_stories_is_the_published_one(stories, name: str, nats: float):
    """The first 24 stories, each from <s> on, the first 256 tokens of each."""
    model, tokenizer = stories
    documents = [text.strip() for text in read_separated(mirror(name))][:24]
    rows = [torch.tensor([[BOS, *tokenizer.encode(text)][:256]]) for text in documents]
    report = evaluate_loss(model, [(row[:, :-1], row[:, 1:]) for row in rows])
    assert len(rows) == 24
    assert report.nats_per_token == pytest.approx(nats, abs=1e-3)
    if name == "tinystories_valid.txt":
        assert report.nats_per_token == pytest.approx(1.27, abs=0.02)


def test_transformers_gives_the_same_logits(stories, tmp_path: Path):
    model, tokenizer = load_llama2c(mirror(WEIGHTS.name)).double(), stories[1]
    save_hf(model, tmp_path)  # float32 differs by 1e-5 of logits that reach 10
    theirs = LlamaForCausalLM.from_pretrained(tmp_path)
    assert theirs.config.num_key_value_heads == 4 and theirs.dtype == torch.float64
    ids = torch.tensor([[BOS, *tokenizer.encode("Lily and Tom went to the park.")]])
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, model(ids), atol=1e-5, rtol=0)


# A file by hand -----------------------------------------------------------------------------------


def test_each_number_of_the_file_comes_to_its_place(tmp_path: Path):
    path = tmp_path / "model.bin"
    path.write_bytes(content())
    model = load_llama2c(path, sha256=sha256_file(path))
    config = model.config
    mixer, ffn = config.blocks[0].mixer, config.blocks[0].ffn
    assert (config.d_model, ffn.d_ff, config.n_layers, config.max_seq_len) == (8, 12, 2, 6)
    assert (mixer.n_heads, mixer.n_kv_heads, config.vocab_size) == (2, 1, 5)
    assert mixer.position == RopeConfig(10_000.0, "interleaved")
    assert config.tie_weights and not model.training
    firsts = {  # where each begins: sizes of all before it, added up by hand
        "embedding.weight": 0,
        "blocks.0.norm_1.weight": 40,
        "blocks.1.norm_1.weight": 48,
        "blocks.0.mixer.query.weight": 56,
        "blocks.1.mixer.query.weight": 120,
        "blocks.0.mixer.key.weight": 184,
        "blocks.0.mixer.value.weight": 248,
        "blocks.1.mixer.value.weight": 280,
        "blocks.0.mixer.output.weight": 312,
        "blocks.0.norm_2.weight": 440,
        "blocks.0.ffn.gate.weight": 456,
        "blocks.0.ffn.down.weight": 648,
        "blocks.0.ffn.up.weight": 840,
        "norm.weight": 1032,
    }
    state = model.state_dict()
    for name, first in firsts.items():
        assert state[name].flatten()[0].item() == pytest.approx(first / 100), name
    assert state["blocks.0.ffn.down.weight"].shape == (8, 12)
    assert state["blocks.0.ffn.down.weight"][1, 0].item() == pytest.approx(6.60)  # row after row
    assert model.head.weight is model.embedding.weight


def test_negative_vocabulary_has_a_head_of_its_own(tmp_path: Path):
    path = tmp_path / "model.bin"
    path.write_bytes(content({"vocab_size": -5}))
    model = load_llama2c(path)
    assert model.config.vocab_size == 5 and not model.config.tie_weights
    assert (model.head.weight == -1).all() and (model.embedding.weight >= 0).all()


def put(at: int, value: float) -> Callable[[bytes], bytes]:
    """The number at an index of the float32 part, changed."""
    at = 28 + 4 * at
    return lambda whole: whole[:at] + struct.pack("<f", value) + whole[at + 4 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: b"", "expected a header of 28 bytes, the file has 0"),
        (lambda whole: whole[:27], "expected a header of 28 bytes, the file has 27"),
        (lambda whole: whole[:-4], "asks for 4,284 bytes, the file has 4,280 (cut short)"),
        (lambda whole: whole + b"\0", "asks for 4,284 bytes, the file has 4,285 (longer"),
        (lambda whole: b"24ka" + whole[4:], "a llama2.c file of version 12, expected version 0"),
        (lambda whole: b"24ka" + whole[4:200], "expected a header of 256 bytes, the file has 200"),
        (lambda whole: b"PK\3\4" + whole[4:], "the header says dim = 67324752, expected 1 to"),
        (lambda whole: content({"n_layers": 0}), "n_layers = 0, expected 1 to"),
        (lambda whole: content({"n_layers": 2**24}), "the file has 4,284 (cut short)"),
        (lambda whole: content({"n_layers": -2}), "n_layers = -2, expected 1 to"),
        (lambda whole: content({"n_heads": 3}), "dim = 8, n_heads = 3, n_kv_heads = 1"),
        (lambda whole: content({"n_kv_heads": 3}), "n_kv_heads must divide n_heads"),
        (lambda whole: content({"n_kv_heads": 2}), "the file has 4,284 (cut short)"),
        (lambda whole: content(base=500000.0), "from RoPE with base 10000"),
        (put(N_NUMBERS - 1, 0.5), "its rotary tables differ by"),
        (put(60, float("nan")), "mixer.query.weight is not finite"),
        (put(N_NUMBERS - 25, float("inf")), "norm.weight is not finite"),
    ],
)
def test_damaged_file_is_refused(tmp_path: Path, damage, message: str):
    assert len(content()) == 28 + 4 * N_NUMBERS == 4284
    path = tmp_path / "model.bin"
    path.write_bytes(damage(content()))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load_llama2c(path)
    assert str(path) in str(error.value)


# Written ------------------------------------------------------------------------------------------


def test_what_is_written_of_stories260k_is_the_published_file(stories, tmp_path: Path):
    save_llama2c(stories[0], tmp_path / "model.bin")
    assert (tmp_path / "model.bin").read_bytes() == mirror(WEIGHTS.name).read_bytes()
    stories[1].save(tmp_path)
    assert (tmp_path / "tokenizer.bin").read_bytes() == mirror(TOKENIZER.name).read_bytes()


@pytest.mark.parametrize("vocab_size", [5, -5])
@pytest.mark.parametrize("version", [0, 1])
def test_a_file_is_the_same_after_reading_and_writing(tmp_path: Path, version, vocab_size):
    first, second = tmp_path / "first.bin", tmp_path / "second.bin"
    first.write_bytes(content({"vocab_size": vocab_size}))
    model = load_llama2c(first)
    save_llama2c(model, second, version=version)
    again = load_llama2c(second)
    assert all(torch.equal(x, again.state_dict()[n]) for n, x in model.state_dict().items())
    assert again.config == model.config
    save_llama2c(again, first, version=version)
    assert first.read_bytes() == second.read_bytes()


def test_version_1_by_hand(tmp_path: Path):
    """A mark, the number, seven sizes, one byte for a tied output layer; then norms, then matrices.

    Where each begins in a file of version 0 is added up above.
    """
    path = tmp_path / "model.bin"
    path.write_bytes(content())
    save_llama2c(load_llama2c(path), path, version=1)
    data = path.read_bytes()
    assert data[:37] == b"24ka" + struct.pack("<8iB", 1, *SIZES.values(), 1)
    assert data[37:256] == bytes(219) and len(data) == 256 + 4 * (N_NUMBERS - 24)
    numbers = (100 * np.frombuffer(data, "<f4", offset=256)).round().astype(int)
    norms = [40, 48, 440, 448, 1032]
    matrices = [0, 56, 120, 184, 216, 248, 280, 312, 376, 456, 552, 648, 744, 840, 936]
    firsts = np.cumsum([0, 8, 8, 8, 8, 8, 40, 64, 64, 32, 32, 32, 32, 64, 64, 96, 96, 96, 96, 96])
    assert numbers[firsts].tolist() == [*norms, *matrices]


def test_pairs_of_rope_become_neighbours(tmp_path: Path):
    half = ModelConfig.uniform(5, 6, n_layers=2, d_model=8, n_heads=2, d_ff=12, n_kv_heads=1)
    model = Transformer(half).eval()
    save_llama2c(model, tmp_path / "model.bin")
    ids = torch.tensor([[0, 3, 1, 4, 2]])
    again = load_llama2c(tmp_path / "model.bin")
    torch.testing.assert_close(again(ids), model(ids), atol=1e-6, rtol=0)


def test_what_llama2c_does_not_have_is_refused_by_name(tmp_path: Path):
    config = ModelConfig.uniform(5, 6, n_layers=2, d_model=8, n_heads=2, d_ff=12)
    for changes, part in (
        ({"window": 3}, "blocks[0].mixer.window = None only, got 3"),
        ({"rope_base": 5e5}, "blocks[0].mixer.position.base = 10000.0 only, got 500000.0"),
        ({"ffn": "geglu"}, "blocks[0].ffn.activation = 'silu' only, got 'gelu'"),
        ({"bias": True}, "blocks[0].mixer.bias = False only, got True"),
        ({"eps": 1e-6}, "blocks[0].norm.eps = 1e-05 only, got 1e-06"),
        ({"mixer": "mamba"}, "blocks[0].mixer must be of kind 'attention', got 'mamba'"),
    ):
        with pytest.raises(ValueError, match=r"no form of llama2\.c") as error:
            save_llama2c(Transformer(config.replace(**changes)), tmp_path / "model.bin")
        assert part in str(error.value)
    model = Transformer(config)
    model.norm.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match=r"norm.weight is not finite"):
        save_llama2c(model, tmp_path / "model.bin")
    with pytest.raises(ValueError, match="version must be 0 or 1, got 2"):
        save_llama2c(model, tmp_path / "model.bin", version=2)
    assert not list(tmp_path.iterdir())


def test_one_bit_is_noticed_by_the_checksum_alone(tmp_path: Path):
    path = tmp_path / "model.bin"
    path.write_bytes(content())
    right = sha256_file(path)
    path.write_bytes(put(100, 1.5)(content()))
    load_llama2c(path)  # a finite number is as good as another
    with pytest.raises(ChecksumError, match=f"expected sha256 {right}, found "):
        load_llama2c(path, sha256=right)


@pytest.mark.parametrize("file", [WEIGHTS, TOKENIZER], ids=lambda f: f.name)
def test_damaged_download_is_refused(tmp_path: Path, monkeypatch, file):
    for each in (WEIGHTS, TOKENIZER):
        whole = mirror(each.name).read_bytes()
        at = len(whole) // 2 if each is file else len(whole)
        copy = tmp_path / "mirror" / each.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(
            whole[:at] + bytes(byte ^ 1 for byte in whole[at : at + 1]) + whole[at + 1 :]
        )
    monkeypatch.setenv("LLMTUTOR_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("LLMTUTOR_DATA", str(tmp_path / "data"))
    with pytest.raises(ChecksumError, match=f"{file.name}.*expected sha256 {file.sha256}"):
        load_stories260k()


def test_missing_file_is_an_error_of_the_file_system(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        load_llama2c(tmp_path / "model.bin")


# The tokenizer ------------------------------------------------------------------------------------


def by_rounds(tokenizer: Llama2cTokenizer, text: str) -> list[int]:
    """As run.c does: the whole text at once, one merge a round, ids looked up in all pieces."""
    scores = dict(zip(tokenizer._ids, [0.0] * len(tokenizer._ids), strict=True))
    for piece, score in tokenizer._pieces[259:]:
        scores[piece.decode()] = score
    parts = list(" " + text) if text else []
    while True:
        best_score, best = -1e10, -1
        for i in range(len(parts) - 1):
            if scores.get(parts[i] + parts[i + 1], -1e10) > best_score:
                best_score, best = scores[parts[i] + parts[i + 1]], i
        if best < 0:
            break
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    ids = [[tokenizer._ids[p]] if p in scores else [3 + b for b in p.encode()] for p in parts]
    return [id for part in ids for id in part]


def small() -> Llama2cTokenizer:
    pieces = {" ": -9, "a": -8, "b": -7, "ab": -1, " a": -2, "ba": -3, "aa": -4, "aba": -5}
    more = {"  ": -6, "é": -10, "abab": 1}
    named = [(text.encode(), float(score)) for text, score in {**pieces, **more}.items()]
    return Llama2cTokenizer([*Llama2cTokenizer.FIXED, *named])


@given(st.text("ab é\n😀<0x41>", max_size=30))
def test_encode_is_the_rounds_of_llama2c_and_decode_undoes_it(text: str):
    tokenizer = small()
    ids = tokenizer.encode(text)
    assert ids == by_rounds(tokenizer, text)
    assert tokenizer.decode(ids) == text


@given(st.lists(st.text("ab é", max_size=6), max_size=6))
def test_chunks_do_not_matter(chunks: list[str]):
    assert list(small().encode_iterable(chunks)) == small().encode("".join(chunks))


def test_stories_are_encoded_as_by_rounds(stories):
    _, tokenizer = stories
    for text in list(read_separated(mirror("tinystories_valid.txt")))[:3]:
        ids = tokenizer.encode(text)
        assert ids == by_rounds(tokenizer, text)
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("word", ["a", "ab", "\n", " "])
def test_a_long_word_takes_few_steps(word: str, monkeypatch: pytest.MonkeyPatch):
    """A merge offers two pairs, so a word of n characters offers at most 3 n."""
    offered = 0

    def count(heap: list, entry: tuple) -> None:
        nonlocal offered
        offered += 1
        heappush(heap, entry)

    monkeypatch.setattr(llama2c_tokenizer, "heappush", count)
    tokenizer, text = small(), word * 20_000
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert offered <= 3 * (len(text) + 1)
    assert list(tokenizer.encode_iterable(text)) == ids


def test_it_is_a_tokenizer_and_its_file_goes_round(stories, tmp_path: Path):
    _, tokenizer = stories
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.vocab_size, dict(tokenizer.special_tokens)) == (512, {"<s>": 1, "</s>": 2})
    assert tokenizer.decode([1, 2]) == "" and tokenizer.token_bytes(13) == b"\n"
    tokenizer.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.bin"]
    again = Llama2cTokenizer.load(tmp_path / "tokenizer.bin", 512)
    assert again.fingerprint() == tokenizer.fingerprint() == TOKENIZER.sha256
    assert small().fingerprint() != tokenizer.fingerprint()


@pytest.mark.parametrize(
    ("damage", "vocab_size", "message"),
    [
        (lambda whole: whole[:-1], 270, "expected 270 tokens, it is cut or damaged at token 269"),
        (lambda whole: whole, 271, "cut or damaged at token 270"),
        (lambda whole: whole, 0, "not a llama2.c tokenizer of 0 tokens"),
        (lambda whole: whole, 269, "not a llama2.c tokenizer of 269 tokens"),
        (lambda whole: whole + b"\0", 270, "not a llama2.c tokenizer of 270 tokens"),
        (lambda whole: b"\0" + whole[1:], 270, "not a llama2.c tokenizer of 270 tokens"),
        (lambda whole: whole[:8] + b"\xff" * 4 + whole[12:], 270, "damaged at token 0"),
        (lambda whole: whole.replace(b"<unk>", b"<umk>"), 270, "<unk>, <s>, </s> and 256 bytes"),
        (lambda whole: whole.replace("é".encode(), b"\xff\xff"), 270, "can't decode byte 0xff"),
        (lambda whole: whole.replace(b"aba", b"b a"), 270, "is 'b a' with score"),
        (lambda whole: b"", 270, "cut or damaged at token 0"),
    ],
)
def test_damaged_tokenizer_is_refused(tmp_path: Path, damage, vocab_size: int, message: str):
    small().save(tmp_path)
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        Llama2cTokenizer.load(path, vocab_size)
    assert str(path) in str(error.value)


def test_bad_text_and_bad_ids_are_refused():
    with pytest.raises(ValueError, match="lone surrogate"):
        small().encode("a\ud83d")
    with pytest.raises(ValueError, match="ids from 0 to 269, found 270"):
        small().decode([270])
    with pytest.raises(ValueError, match="found -1"):
        small().token_bytes(-1)
