"""`tokenizer.json` of the two usual kinds, held against `transformers`; a folder that can write."""

import json
from pathlib import Path

import pytest
import tokenizers
import torch
from tokenizers import AddedToken, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler
from llmtutor.interop.hf import HFTokenizer, load_hf, load_hf_with_tokenizer, save_hf
from llmtutor.interop.hf.tokenizer import GENERATION, TOKENIZER
from llmtutor.model.presets import build, preset
from llmtutor.tokenizer import BPETokenizer
from llmtutor.tokenizer.base import Tokenizer
from llmtutor.tokenizer.fast import to_tokenizers

TEXTS = ["the cat sat on the mat", "né € 😀\n\n  x", " the", "a<|end|>b", ""]


def byte_level() -> tokenizers.Tokenizer:
    """As GPT-2, Llama 3, Qwen and OLMo 2: pieces are spelled with one character for each byte."""
    ours = BPETokenizer.train("the cat sat on the mat, né né", 280, special_tokens=["<|end|>"])
    return to_tokenizers(ours)


def sentence_piece() -> tokenizers.Tokenizer:
    """As Llama 1 and 2, Mistral and Gemma: spaces are ▁, bytes are pieces of their own."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "t", "h", "e", "c", "a", "s", "th", "the", "▁the", "é"]
    vocab = {piece: id for id, piece in enumerate(pieces)}
    merges = [("t", "h"), ("th", "e"), ("▁", "the")]
    rust = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True)
    )
    rust.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    rust.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    named = [AddedToken(name, special=True, normalized=False) for name in ("<s>", "</s>")]
    rust.add_special_tokens(named)
    rust.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocab["<s>"])]
    )
    return rust


KINDS = {"bytes": byte_level, "sentencepiece": sentence_piece}


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_texts_are_those_of_the_library(kind) -> None:
    rust = KINDS[kind]()
    ours, theirs = HFTokenizer(rust), PreTrainedTokenizerFast(tokenizer_object=KINDS[kind]())
    assert isinstance(ours, Tokenizer)
    assert ours.vocab_size == len(theirs)
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False)
        assert ours.prompt(text) == theirs.encode(text)
        assert ours.decode(ids) == text == theirs.decode(ids)
        assert list(ours.encode_iterable(text)) == ids
        streamed = b"".join(map(ours.token_bytes, ids)).decode("utf-8")
        assert streamed.removeprefix(" " if kind == "sentencepiece" else "") == text
    begin = [1] if kind == "sentencepiece" else []
    assert ours.prompt("the") == begin + ours.encode("the")
    assert (set(ours.special_tokens) == {"<|end|>"}) == (kind == "bytes")


def test_one_piece_is_its_bytes() -> None:
    ours = HFTokenizer(sentence_piece())
    assert [ours.token_bytes(id) for id in (0, 1, 3 + 0xC3, 268)] == [
        b"<unk>",
        b"<s>",
        b"\xc3",
        b" the",
    ]
    with pytest.raises(ValueError, match="expected ids from 0 to 269, found 270"):
        ours.token_bytes(270)
    with pytest.raises(ValueError, match="found -1"):
        ours.decode([-1])
    with pytest.raises(ValueError, match="lone surrogate"):
        ours.encode("a\ud83d")
    with pytest.raises(ValueError, match="lone surrogate"):
        ours.prompt("a\ud83d")


def test_it_goes_into_a_file_and_comes_back(tmp_path: Path) -> None:
    ours = HFTokenizer(byte_level())
    ours.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [TOKENIZER]
    for place in (tmp_path, tmp_path / TOKENIZER):
        again = HFTokenizer.load(place)
        assert again.fingerprint() == ours.fingerprint() and len(again.fingerprint()) == 64
    assert HFTokenizer(sentence_piece()).fingerprint() != ours.fingerprint()


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json in "):
        HFTokenizer.load(tmp_path)
    path = tmp_path / TOKENIZER
    for content in (b"", b"{}", b"\xff", b'{"version": "1.0", "model": 5}'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=TOKENIZER):
            HFTokenizer.load(tmp_path)
    rust = byte_level()
    rust.decoder = decoders.WordPiece()
    rust.save(str(path))
    with pytest.raises(ValueError, match=r"tokenizer\.json: its decoder is WordPiece; expected"):
        HFTokenizer.load(tmp_path)


# A folder as from the hub -------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sizes = {"vocab_size": 288, "max_seq_len": 32, "n_layers": 1, "d_model": 16, "n_heads": 2}
    torch.manual_seed(0)
    save_hf(build(preset("llama-nano", **sizes, d_ff=24)), tmp_path)
    HFTokenizer(sentence_piece()).save(tmp_path)
    return tmp_path


def write(path: Path, **changes) -> None:
    values = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**values, **changes}), "utf-8")


def test_a_folder_writes(folder: Path) -> None:
    """Its vocabulary is padded beyond the tokenizer's, as is usual, its weights are bfloat16."""
    save_hf(load_hf(folder).bfloat16(), folder)
    write(folder / "config.json", eos_token_id=2)
    model, tokenizer, stop = load_hf_with_tokenizer(folder)
    assert model.embedding.weight.dtype == torch.bfloat16
    assert not model.training and stop == {2}
    assert (model.config.vocab_size, tokenizer.vocab_size) == (288, 270)
    prompt = tokenizer.prompt("the cat")
    (ids,) = generate(model, [prompt], max_new_tokens=8, sampler=Sampler(greedy=True), stop=stop)
    assert len(ids) == 8 or ids[-1] == 2


def test_stop_tokens_are_those_of_generation_first(folder: Path) -> None:
    assert load_hf_with_tokenizer(folder).stop == set()
    write(folder / "config.json", eos_token_id=2)
    write(folder / GENERATION, eos_token_id=[5, 6])
    assert load_hf_with_tokenizer(folder).stop == {5, 6}
    write(folder / GENERATION, eos_token_id=None)
    assert load_hf_with_tokenizer(folder).stop == {2}
    for value in ("2", -1, 288, True, [2, None], {}):
        write(folder / GENERATION, eos_token_id=value)
        with pytest.raises(ValueError, match=rf"{GENERATION} has eos_token_id = .*from 0 to 287"):
            load_hf_with_tokenizer(folder)
    (folder / GENERATION).write_text("{", "utf-8")
    with pytest.raises(ValueError, match=f"{GENERATION}: expected a JSON object"):
        load_hf_with_tokenizer(folder)


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="found no such folder"):
        load_hf_with_tokenizer(folder / "elsewhere")
    rust = sentence_piece()
    rust.add_tokens([f"more{i}" for i in range(20)])
    HFTokenizer(rust).save(folder)
    with pytest.raises(ValueError, match=r"has ids up to 289, the model's are 0 … 287"):
        load_hf_with_tokenizer(folder)
