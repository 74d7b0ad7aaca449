"""Chapter 01: what its page says of tokenizers that it does not build."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

BLANK = "▁"


@pytest.mark.parametrize("may_cross", [False, True])
def test_a_token_of_sentencepiece_begins_with_a_blank_but_does_not_cross_one(
    may_cross: bool,
) -> None:
    """Cut at blanks is the default, here as there; only who switches it off sees tokens cross."""
    tokenizer = Tokenizer(models.BPE())
    options = {"split": False} if may_cross else {}
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(**options)
    trainer = trainers.BpeTrainer(vocab_size=60, show_progress=False)
    tokenizer.train_from_iterator(["in the house of the king, in the house of the queen"], trainer)
    tokens = list(tokenizer.get_vocab())
    assert any(token.startswith(BLANK) and len(token) > 1 for token in tokens)
    assert any(BLANK in token[1:] for token in tokens) is may_cross
