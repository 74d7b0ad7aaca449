"""Tokenizers traded with the Rust library, both ways, or refused by name."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from llmtutor.tokenizer import BPETokenizer
from llmtutor.tokenizer.fast import from_tokenizers, to_tokenizers

END = "<|endoftext|>"


def test_there_and_back(trained, code: str) -> None:
    rust = to_tokenizers(trained.ours)
    text = code[-200_000:].replace("\n\n", END)
    assert rust.encode(text).ids == trained.ours.encode(text)
    assert rust.get_vocab_size() == trained.ours.vocab_size
    assert rust.token_to_id(END) == trained.ours.special_tokens[END]
    back = from_tokenizers(rust)
    assert back.fingerprint() == trained.ours.fingerprint()


def test_gpt2_there_and_back(gpt2) -> None:
    assert from_tokenizers(to_tokenizers(gpt2.ours)).fingerprint() == gpt2.ours.fingerprint()
    assert from_tokenizers(gpt2.rust).fingerprint() == gpt2.ours.fingerprint()


def test_a_tokenizer_that_rust_trained(code: str, tmp_path: Path) -> None:
    """Its special tokens come first, its bytes in another order."""
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[END, "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rust.train_from_iterator([code[:100_000]], trainer)
    ours = from_tokenizers(rust)
    assert ours.special_tokens == {END: 0, "<pad>": 1}
    text = code[-100_000:].replace("\n\n", END)
    assert ours.encode(text) == rust.encode(text).ids
    assert to_tokenizers(ours).encode(text).ids == rust.encode(text).ids
    ours.save(tmp_path)
    assert BPETokenizer.load(tmp_path).fingerprint() == ours.fingerprint()


def test_another_pattern_there_and_back(code: str) -> None:
    base = BPETokenizer.train(code[:50_000], 400)
    ours = BPETokenizer(base.vocab, base.merges, {END: 400}, pattern=r"\p{L}+|\d{1,3}|\s|.")
    rust = to_tokenizers(ours)
    text = code[:50_000] + END
    assert rust.encode(text).ids == ours.encode(text) != base.encode(text)
    assert from_tokenizers(rust).fingerprint() == ours.fingerprint()


def change(attribute: str, value: object) -> Callable[[Tokenizer], None]:
    def apply(rust: Tokenizer) -> None:
        setattr(rust, attribute, value)

    return apply


def template(rust: Tokenizer) -> None:
    rust.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, rust.token_to_id(END))]
    )


def change_model(option: str, value: object) -> Callable[[Tokenizer], None]:
    def apply(rust: Tokenizer) -> None:
        setattr(rust.model, option, value)

    return apply


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (change("model", models.Unigram()), "a BPE model, found Unigram"),
        (change("normalizer", normalizers.NFC()), "no normaliser"),
        (change("pre_tokenizer", pre_tokenizers.ByteLevel()), "add_prefix_space=False"),
        (change("pre_tokenizer", pre_tokenizers.Whitespace()), "byte-level .* found Whitespace"),
        (
            change("pre_tokenizer", pre_tokenizers.ByteLevel(False, use_regex=False)),
            "cuts the text into words",
        ),
        (
            change(
                "pre_tokenizer",
                pre_tokenizers.Sequence(
                    [
                        pre_tokenizers.Split(Regex(" "), "removed"),
                        pre_tokenizers.ByteLevel(False, use_regex=False),
                    ]
                ),
            ),
            "one Split by a regex",
        ),
        (template, "no post-processor that adds tokens, found TemplateProcessing"),
        (change_model("dropout", 0.1), "without dropout"),
        (change_model("ignore_merges", True), "without ignore_merges"),
        (
            lambda rust: rust.add_special_tokens([AddedToken("<x>", lstrip=True)]),
            "no special token with lstrip, as '<x>'",
        ),
    ],
)
def test_refusals(spoil: Callable[[Tokenizer], None], said: str) -> None:
    """A tokenizer that would give other ids than ours is refused."""
    rust = to_tokenizers(BPETokenizer.train("to be or not to be", 262, [END]))
    assert from_tokenizers(rust).vocab_size <= 262
    spoil(rust)
    with pytest.raises(ValueError, match=said):
        from_tokenizers(rust)


def test_a_vocabulary_entry_that_is_not_added_is_refused(trained, tmp_path: Path) -> None:
    trained.ours.save(tmp_path)
    model = models.BPE.from_file(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    rust = Tokenizer(model)
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with pytest.raises(ValueError, match="unlike \\['<\\|endoftext"):
        from_tokenizers(rust)


def test_no_pre_tokenizer_is_refused() -> None:
    rust = to_tokenizers(BPETokenizer.train("to be or not to be", 262))
    bare = Tokenizer(rust.model)
    with pytest.raises(ValueError, match="byte-level pre-tokenizer, found none"):
        from_tokenizers(bare)
