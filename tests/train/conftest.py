"""A small corpus and a small model: a step takes milliseconds."""

import pytest

from llmtutor.data import tales
from llmtutor.train.config import TrainConfig

TINY = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 32}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Makes configurations of a tiny run on 40 tales, with everything below ``tmp_path``."""
    monkeypatch.setenv("LLMTUTOR_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("LLMTUTOR_MIRROR", raising=False)
    corpus = tmp_path / "mine.txt"
    corpus.write_bytes("<|endoftext|>".join(tales.generate(40, 1)).encode("utf-8"))

    def make(**changes) -> TrainConfig:
        values = {
            "corpus": str(corpus),
            "model": TINY,
            "seq_len": 16,
            "batch_size": 4,
            "steps": 12,
            "eval_every": 4,
            "eval_tokens": 100,
            "save_every": 4,
            "device": "cpu",
            "out": str(tmp_path / "run"),
        }
        return TrainConfig(**(values | changes))

    return make
