"""Chapter 04: what its text says without showing it, and where a page sends its readers."""

import math
import re

import contract
import nbformat
import pytest
import torch

from llmtutor.layers.attention import Attention
from llmtutor.model.presets import preset

HOMES = {
    "AdamW": 10,
    "attention": 4,
    "grouped-query attention": 14,
    "norms": 7,
    "optimizers": 10,
    "the training loop": 11,
    "the transformer": 9,
}


def chapter() -> str:
    path = contract.CHAPTERS / "04_attention.ipynb"
    return contract.prose(nbformat.read(path, as_version=4))


def test_a_subject_is_looked_up_in_its_own_chapter() -> None:
    sent = set()
    for path in contract.CHAPTERS.glob("[0-9]*.ipynb"):
        text = contract.prose(nbformat.read(path, as_version=4)).replace("`", "")
        for subject in HOMES:
            numbers = re.findall(rf"(?<!-query ){subject} \(chapter (\d+)\)", text)
            sent |= {(subject, int(number)) for number in numbers}
    assert sent
    assert sent <= set(HOMES.items())


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ("GPT-2, smallest", "gpt2"),
        ("Llama 3 8B", "llama3-8b"),
        ("Gemma 2 2B", "gemma2-2b"),
        ("Qwen 3 0.6B", "qwen3-0.6b"),
    ],
)
def test_the_table_of_models_agrees_with_their_configurations(row: str, name: str) -> None:
    config = preset(name)
    mixer = config.blocks[0].mixer
    shown = re.search(rf"^\| {re.escape(row)} .*?\| (\d+) / (\d+) \| (\d+) \|", chapter(), re.M)
    assert shown is not None
    assert [int(n) for n in shown.groups()] == [
        mixer.n_heads,
        mixer.kv_heads,
        mixer.width(config.d_model),
    ]


def test_what_the_table_says_of_gemma_and_qwen() -> None:
    gemma, qwen = preset("gemma2-2b"), preset("qwen3-0.6b")
    assert gemma.blocks[0].mixer.softcap == 50
    assert [block.mixer.window for block in gemma.blocks[:4]] == [4096, None, 4096, None]
    mixer = qwen.blocks[0].mixer
    assert mixer.qk_norm is not None
    assert (mixer.n_heads * mixer.width(qwen.d_model), qwen.d_model) == (2048, 1024)


def test_the_quiz_on_flops() -> None:
    def flops(seq: int, d_model: int = 4096) -> int:
        return 8 * seq * d_model**2 + 4 * seq**2 * d_model

    assert 4 * 2048**2 * 4096 / flops(2048) == pytest.approx(0.2)
    assert 0.4 < flops(1024) / flops(2048) < 0.5


def test_writing_without_a_cache_repeats() -> None:
    assert 1024 * 1025 / 2 / 1024 > 500


def test_the_previous_token_head_of_the_open_exercise() -> None:
    needed = {seq: math.log(99 * (seq - 1)) for seq in (32, 32_768)}
    assert needed == pytest.approx({32: 8.0, 32_768: 15.0}, abs=0.05)
    layer = Attention(32, n_heads=1).double()
    stretch = needed[32] * math.sqrt(32)
    with torch.no_grad():
        layer.key.weight.copy_(torch.eye(32))
        layer.query.weight.copy_(stretch * torch.eye(32).roll(-1, dims=0))  # i asks for i − 1
        seen = layer.weights(torch.eye(32, dtype=torch.float64)[None])[0, 0]
    assert seen.diagonal(-1).min().item() == pytest.approx(0.99)
