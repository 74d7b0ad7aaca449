"""Chapter 04: what its text says without showing it, and where a page sends its readers."""

import math
import re
from collections.abc import Callable

import contract
import nbformat
import pytest
import torch
from torch import Tensor

from llmtutor.layers.attention import (
    Attention,
    attention,
    causal_mask,
    fused_attention,
)
from llmtutor.layers.basic import Embedding
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
            numbers = re.findall(
                rf"(?<!-query )(?<!into )(?<!latent )(?<!differential ){subject} \(chapter (\d+)\)",
                text,
            )
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


def test_what_is_said_of_chapter_3s_network() -> None:
    cells = nbformat.read(contract.CHAPTERS / "03_language_modelling.ipynb", as_version=4).cells
    shown = "\n".join(contract.output_text(c) for c in cells if c.cell_type == "code")
    assert re.search(r"^network, 6 characters .* 1\.76 ", shown, re.M)
    assert any("n_steps = 5000" in c.source for c in cells)


def test_the_softmax_of_chapter_3_knows_no_empty_row() -> None:
    empty = torch.full((3,), -math.inf)
    shifted = empty - empty.max()
    assert (shifted - shifted.exp().sum().log()).exp().isnan().all()
    assert math.isnan(0 * math.nan)


def test_a_large_negative_number_instead_of_minus_infinity_is_a_mean_of_the_forbidden() -> None:
    assert torch.softmax(torch.randn(4) + torch.full((4,), -1e9), 0).tolist() == [0.25] * 4


def test_scores_of_the_experiment_start_twice_as_large() -> None:
    torch.manual_seed(0)
    layer, tokens, positions = Attention(48, n_heads=4), Embedding(84, 48), Embedding(32, 48)

    def variance(x: Tensor) -> float:
        q, k = (part(x).unflatten(-1, (4, 12)).transpose(0, 1) for part in (layer.query, layer.key))
        return (q @ k.mT / math.sqrt(12)).var().item()

    some = tokens(torch.randint(84, (2048,)))
    both = some + positions.weight.repeat(64, 1)
    assert variance(both) / variance(some) == pytest.approx(4, rel=0.15)  # twice the deviation


def kept_for_backward(attend: Callable[..., Tensor], seq: int) -> int:
    """Bytes that autograd holds between the forward and the backward pass."""
    kept = {}
    q, k, v = (torch.ones(1, 4, seq, 64, requires_grad=True) for _ in range(3))

    def note(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        result = attend(q, k, v, causal=True)  # holds on to what it saved
    assert result.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize(("attend", "growth"), [(attention, 3.7), (fused_attention, 2.0)])
def test_what_twice_the_length_keeps(attend: Callable[..., Tensor], growth: float) -> None:
    measured = kept_for_backward(attend, 1024) / kept_for_backward(attend, 512)
    assert measured == pytest.approx(growth, abs=0.05)


def test_sums_said_without_being_shown() -> None:
    weights = 4 * 12 * 1024**2  # bytes of one layer and sequence of GPT-2
    assert round(weights / 1e6) == 50 and round(12 * 8 * weights / 1e9, 1) == 4.8
    # About five operations of a softmax for each pair, beside 4 · 64 of its products.
    assert round(100 * 5 / (4 * 64)) == 2
    assert 3 / 30 == 0.1  # three of thirty places lie in a window of four that ends in a question


def test_a_second_layer_can_use_how_many_keys_were_seen() -> None:
    """One layer sees a bag; its output at an early position depends on how many came before."""
    torch.manual_seed(0)
    first, second = (Attention(8, n_heads=2).double() for _ in range(2))
    x = torch.randn(1, 6, 8, dtype=torch.float64)
    turned = x[:, [3, 0, 4, 1, 2, 5]]
    torch.testing.assert_close(first(x)[:, -1], first(turned)[:, -1])
    assert not torch.allclose(second(first(x))[:, -1], second(first(turned))[:, -1])
    assert causal_mask(6).sum(dim=1).tolist() == [1, 2, 3, 4, 5, 6]
