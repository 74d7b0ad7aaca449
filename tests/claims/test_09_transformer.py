"""Chapter 09: its own classes, the tables it prints by hand, and what it reads from the record."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from torch import Tensor, nn

from llmtutor.experiments.staircase import Step, steps
from llmtutor.experiments.study import load_record
from llmtutor.interop.hf import FAMILIES, state_to_hf
from llmtutor.layers.attention import AttentionConfig
from llmtutor.layers.ffn import DenseConfig
from llmtutor.layers.positions import Rope
from llmtutor.model.accounting import parameters
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import build, preset
from llmtutor.model.published import PUBLISHED

BOOK = Path(__file__).resolve().parents[2] / "book"
DEFINITIONS = (
    "SelfAttention",
    "MLP",
    "Decoder",
    "make_gpt2",
    "renamed",
    "make_llama",
    "TheirBlock",
)
SIZES = {"vocab_size": 9, "max_seq_len": 5, "n_layers": 2, "d_model": 8, "n_heads": 2}


@cache
def page() -> nbformat.NotebookNode:
    return nbformat.read(BOOK / "chapters" / "09_transformer.ipynb", as_version=4)


def prose() -> str:
    return "\n\n".join(cell.source for cell in page().cells if cell.cell_type == "markdown")


@cache
def chapter() -> dict[str, Any]:
    """What the chapter's own cells define."""
    names: dict[str, Any] = {"torch": torch, "nn": nn}
    for cell in page().cells:
        defined = re.findall(r"^(?:class|def) (\w+)", cell.source, re.M)
        if cell.cell_type != "code":
            continue
        if "import math" in cell.source:
            exec(cell.source, names)
        elif set(defined) & set(DEFINITIONS):
            # Only what is defined: what the cell then does with it has been done on the page.
            exec(
                re.split(r"^\w+ = make_|^sizes = |^library_llama", cell.source, flags=re.M)[0],
                names,
            )
    return names


def library() -> tuple[nn.Module, dict[str, Tensor], Tensor]:
    """A model with a value of its own for each weight, its tensors in the file, ids."""
    torch.manual_seed(0)
    model = build(preset("gpt2", **SIZES, d_ff=32)).double()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.2)
    return model, state_to_hf(model.state_dict(), model.config), torch.randint(9, (2, 5))


def test_the_path_of_additions_is_credited_to_identity_mappings() -> None:
    """Residual networks came first (CVPR 2016); why the path must stay clean followed (ECCV)."""
    said = "a path of additions alone to each writer, however deep it lies {cite}`he2016b`"
    assert said in prose()
    entries = (BOOK / "references.bib").read_text(encoding="utf-8")
    entry = re.search(r"@inproceedings\{he2016b,.*?\n\}", entries, re.S)
    assert (
        entry and "Identity Mappings in Deep Residual Networks" in entry[0] and "ECCV" in entry[0]
    )


def test_through_silent_layers_the_gradient_arrives_unchanged_at_any_depth() -> None:
    model = chapter()["make_gpt2"](**SIZES | {"n_layers": 8})
    for block in model.blocks:
        for writer in (block.mixer.output, block.ffn.down):
            nn.init.zeros_(writer.weight)
    x = torch.randn(1, 5, 8, requires_grad=True)
    y = x
    for block in model.blocks:
        y = block(y)
    gradient = torch.randn(1, 5, 8)
    assert torch.equal(torch.autograd.grad(y, x, gradient)[0], gradient)


def test_the_chapters_class_reads_the_file_as_it_was_first_published() -> None:
    """Names without "transformer.", and the mask among the weights."""
    model, theirs, ids = library()
    old = {name.removeprefix("transformer."): value for name, value in theirs.items()}
    for i in range(2):
        old[f"h.{i}.attn.bias"] = torch.ones(5, 5).tril().view(1, 1, 5, 5)
    mine = chapter()["make_gpt2"](**SIZES).double()
    found = mine.load_state_dict(chapter()["renamed"](old), strict=False)
    assert not found.missing_keys
    assert found.unexpected_keys == ["blocks.0.attn.bias", "blocks.1.attn.bias"]
    torch.testing.assert_close(mine(ids), model(ids))


def test_the_square_matrix_loads_either_way_and_only_one_is_right() -> None:
    model, theirs, ids = library()
    state = chapter()["renamed"](theirs)
    for i in range(2):
        name = f"blocks.{i}.mixer.output.weight"
        state[name] = state[name].T
    mine = chapter()["make_gpt2"](**SIZES).double()
    mine.load_state_dict(state)
    assert not torch.allclose(mine(ids), model(ids))


def test_weights_of_the_other_pairing_load_and_give_other_logits() -> None:
    torch.manual_seed(0)
    model = build(preset("llama", **SIZES, d_ff=16, init="glorot"))
    mine = chapter()["make_llama"](**SIZES, d_ff=16)
    mine.load_state_dict(model.state_dict())
    ids = torch.randint(9, (2, 5))
    torch.testing.assert_close(mine(ids), model(ids))
    for block in mine.blocks:
        block.mixer.position = Rope(4)
    mine.load_state_dict(model.state_dict())
    off = (mine(ids) - model(ids)).abs().amax(dim=(0, 2))  # by position
    assert off[0] == 0 and (off[1:] > 1e-3).all()


def test_where_pairs_cost_as_much_as_matrices_and_blocks_as_much_as_the_embedding() -> None:
    assert "They are equal at $T = 6d$, for GPT-2 at 4,608 tokens" in prose()
    d, seq = 768, 6 * 768
    assert seq == 4608
    mixer, ffn = PUBLISHED["gpt2"].blocks[0].mixer, PUBLISHED["gpt2"].blocks[0].ffn
    assert isinstance(mixer, AttentionConfig) and isinstance(ffn, DenseConfig)
    assert mixer.n_heads * 64 == d
    matrices = 2 * (4 * d * d + 2 * d * ffn.d_ff)
    assert matrices == 24 * d * d == 4 * seq * d
    vocabulary, n_layers = 50257, 12
    assert round(vocabulary / (12 * n_layers)) == 349 and "349 for GPT-2's vocabulary" in prose()
    larger = {}
    for width in (192, 3072):
        sizes = {"d_model": width, "d_ff": 4 * width}
        tied, untied = (
            parameters(preset("gpt2", **sizes, tie_weights=tie)).total for tie in (True, False)
        )
        larger[width] = round(100 * (untied / tied - 1))
    assert f"would be {larger[192]} % larger, one of width 3,072 by {larger[3072]} %" in prose()


def test_the_block_with_the_bug_learns_all_the_same() -> None:
    torch.manual_seed(0)
    model = chapter()["make_llama"](**SIZES, d_ff=16)
    for block in model.blocks:
        block.__class__ = chapter()["TheirBlock"]
    ids = torch.tensor([[0, 1, 2, 3, 4], [5, 6, 7, 8, 0]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


def test_dropout_is_in_three_places_and_silent_in_evaluation() -> None:
    model, _, ids = library()
    places = []
    noisy = chapter()["make_gpt2"](**SIZES, dropout=0.5).double()
    noisy.load_state_dict(model.state_dict())
    for name, module in noisy.named_modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda *_, name=name: places.append(name))
    noisy(ids)
    blocks = [f"blocks.{i}.{place}" for i in range(2) for place in ("mixer.drop", "drop", "drop")]
    assert places == ["drop", *blocks]
    torch.testing.assert_close(noisy.eval()(ids), model(ids))


NORMS = {"pre": "before", "res-post": "after", "sandwich": "before and after"}
FFNS = {"gelu_tanh": "GELU", "silu": "SwiGLU"}


def row(config: ModelConfig) -> list[str]:
    """A line of the table of today's models, from a configuration."""
    mixer, ffn = config.blocks[0].mixer, config.blocks[0].ffn
    assert isinstance(mixer, AttentionConfig) and isinstance(ffn, DenseConfig)
    norm = {"layernorm": "LayerNorm", "rmsnorm": "RMSNorm"}[config.blocks[0].norm.kind]
    norm += f", {NORMS[config.blocks[0].norm_placement]}"
    gated = "GEGLU" if ffn.activation == "gelu_tanh" else "SwiGLU"
    return [
        "RoPE" if mixer.position.kind == "rope" else "learned",
        norm + ("; of q and k" if mixer.qk_norm else ""),
        gated if ffn.kind == "gated-mlp" else FFNS[ffn.activation],
        "all" if mixer.bias and ffn.bias else "none",
        "tied" if config.tie_weights else "its own",
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("gpt2", "GPT-2"),
        ("llama3-8b", "Llama 3 8B"),
        ("olmo2-1b", "OLMo 2 1B"),
        ("gemma3-1b", "Gemma 3 1B"),
        ("qwen3-0.6b", "Qwen3 0.6B"),
    ],
)
def test_todays_models_are_as_their_configurations_say(name: str, shown: str) -> None:
    line = re.search(rf"^\| {re.escape(shown)} \{{cite\}}`\w+` \| (.*) \|$", prose(), re.M)
    assert line and line[1].split(" | ") == row(PUBLISHED[name])


def test_small_models_tie_and_there_are_sixteen_families() -> None:
    assert PUBLISHED["llama3.2-1b"].tie_weights and not PUBLISHED["llama3-8b"].tie_weights
    assert len(FAMILIES) == 16 and "Sixteen families can be loaded" in prose()


def test_what_the_staircase_shows_up_to_the_modern_block() -> None:
    by_name: dict[str, Step] = {step.rung: step for step in steps(load_record("staircase"))}
    names = ("mlp", "attention", "positions", "rope", "norms", "feed-forward", "gpt2", "modern")
    climb = [by_name[name] for name in names]
    _, attention, positions, rope, norms, ffn, gpt2, modern = climb
    worse = [step.rung for step in climb if step.gain_interval[1] < 0]
    assert worse == ["mlp", "attention", "gpt2"] and "Three steps went backwards" in prose()
    assert 0.9 * -attention.gain < positions.gain
    assert positions.bits_per_byte > by_name["trigram"].bits_per_byte  # most of it, not all
    assert rope.better and norms.better and ffn.better
    assert {*sorted(climb, key=lambda step: -step.gain)[:2]} == {positions, modern}
    assert gpt2.bits_per_byte > ffn.bits_per_byte
    assert round(3 * (attention.bits_per_byte - modern.bits_per_byte), 1) == 1.0  # a third
    # The norms are distinguishable, though the runs of one rung differ by more.
    low, high = norms.interval
    assert norms.gain < high - low
