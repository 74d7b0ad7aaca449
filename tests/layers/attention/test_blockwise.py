"""Compressed blocks beside a window; and Linformer, which looks ahead, with the library's own."""

import pytest
import torch
from linformer import LinformerLM
from linformer.linformer import LinformerSelfAttention
from torch import Tensor, nn

from llmtutor.evaluate.causality import assert_causal, find_leak
from llmtutor.layers.attention import Attention
from llmtutor.layers.attention.blockwise import BlockwiseAttention, BlockwiseConfig
from llmtutor.layers.attention.linformer import Linformer, LinformerConfig
from llmtutor.layers.basic import Embedding, Linear
from llmtutor.layers.part import Load, Site
from llmtutor.layers.positions import Rope, RopeConfig
from llmtutor.layers.registry import PARTS
from llmtutor.model.config import ModelConfig

EXACT = {"rtol": 1e-10, "atol": 1e-11}
D, SEQ = 16, 11


def randomised(layer: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    for p in layer.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return layer.requires_grad_(False)


def made(**options) -> BlockwiseAttention:
    return randomised(BlockwiseAttention(D, 4, **options).double())


def text(batch: int = 1, seq: int = SEQ) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, seq, D, generator=generator, dtype=torch.float64)


def test_the_rule_token_by_token() -> None:
    """Finished blocks as E K and F V, each row turned as the last token of its section."""
    layer, x = made(block=4, compressed=2, window=5, n_kv_heads=2, position=Rope(4)), text()
    q, k, v = (part(x)[0].unflatten(-1, (-1, 4)) for part in (layer.query, layer.key, layer.value))
    want = torch.zeros(SEQ, 4, 4, dtype=torch.float64)
    for t in range(SEQ):
        near = torch.arange(max(0, t - 4), t + 1)
        for head in range(4):
            shared = head // 2
            keys, values = [layer.position.rotate(k[near, shared], near)], [v[near, shared]]
            for block in range(t // 4):
                inside = slice(4 * block, 4 * block + 4)
                ends = torch.tensor([4 * block + 1, 4 * block + 3])
                keys.append(layer.position.rotate(layer.pool_key @ k[inside, shared], ends))
                values.append(layer.pool_value @ v[inside, shared])
            query = layer.position.rotate(q[t, head][None], torch.tensor([t]))
            weights = (query @ torch.cat(keys).T / 2).softmax(-1)
            want[t, head] = (weights @ torch.cat(values))[0]
    torch.testing.assert_close(layer(x)[0], want.flatten(1) @ layer.output.weight.T, **EXACT)
    assert layer.weights(x).shape == (1, 4, SEQ, 2 * 3 + SEQ)


def test_blocks_of_one_token_kept_whole_are_full_attention_with_all_tokens_twice_but_itself() -> (
    None
):
    """E = F = 1: a query sees each earlier token as a row of its own, and itself in the window."""
    layer = made(block=1, compressed=1, position=Rope(4))
    layer.pool_key.data.fill_(1), layer.pool_value.data.fill_(1)
    plain = Attention(D, 4, position=Rope(4)).double()
    plain.load_state_dict({n: w for n, w in layer.state_dict().items() if "pool" not in n})
    torch.testing.assert_close(layer(text()), plain(text()), **EXACT)


def test_within_the_first_block_it_is_a_window() -> None:
    layer = made(block=4, compressed=2, position=Rope(4))
    plain = Attention(D, 4, position=Rope(4)).double()
    plain.load_state_dict({n: w for n, w in layer.state_dict().items() if "pool" not in n})
    torch.testing.assert_close(layer(text())[:, :4], plain(text())[:, :4], **EXACT)
    assert (layer(text()) - plain(text()))[:, 4:].abs().max() > 1e-3


def test_at_first_a_row_is_the_mean_of_its_section() -> None:
    layer = BlockwiseAttention(D, 4, block=6, compressed=2)
    x = torch.arange(6.0).view(1, 1, 6, 1)
    assert layer._pooled(x, layer.pool_value).flatten().tolist() == pytest.approx([1, 4])


def test_the_cache_holds_rows_instead_of_tokens() -> None:
    layer = made(block=8, compressed=2, n_kv_heads=2)
    cache, plain = (
        layer.make_cache(1, 800),
        Attention(D, 4, n_kv_heads=2).double().make_cache(1, 800),
    )
    assert plain.nbytes == 2 * 2 * 800 * 4 * 8
    assert cache.nbytes == 2 * 2 * (800 // 4 + 8) * 4 * 8
    config = BlockwiseConfig(4, 2, block=8, compressed=2)
    assert cache.nbytes == config.costs(Site(D, 800), Load(1, 800, 8)).cache_bytes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": 0}, "block must be at least 1, got 0"),
        ({"compressed": 3}, "compressed must divide block.* compressed = 3, block = 8"),
        ({"window": 7}, "window must be at least a block.* window = 7, block = 8"),
    ],
)
def test_refuses(options, message) -> None:
    for make in (BlockwiseConfig, lambda n, **rest: BlockwiseAttention(D, n, **rest)):
        with pytest.raises(ValueError, match=message):
            make(4, **options)


def test_the_configuration_builds_what_the_layer_was_told() -> None:
    config = BlockwiseConfig(4, 2, window=9, block=6, compressed=3, position=RopeConfig(base=99.0))
    told = BlockwiseAttention(
        D,
        4,
        n_kv_heads=2,
        window=9,
        block=6,
        compressed=3,
        position=Rope(4, base=99.0, pairing="half"),
    )
    assert repr(config.build(Site(D, SEQ))) == repr(told)
    assert "window=9, block=6, compressed=3" in repr(told)


# --- Linformer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seq", [SEQ, 7])
def test_linformer_is_that_of_the_library(seq) -> None:
    ours = randomised(Linformer(D, 4, seq_len=SEQ, compressed=3).double())
    theirs = LinformerSelfAttention(D, SEQ, k=3, heads=4).double()
    for name, part in (("to_q", ours.query), ("to_k", ours.key), ("to_v", ours.value)):
        getattr(theirs, name).weight.data = part.weight.data
    theirs.proj_k.data, theirs.proj_v.data = ours.pool_key.data.T, ours.pool_value.data.T
    theirs.to_out.weight.data = ours.output.weight.data
    theirs.to_out.bias.data.zero_()
    torch.testing.assert_close(ours(text(seq=seq)), theirs(text(seq=seq)), **EXACT)


def test_linformer_looks_ahead_and_the_position_is_named() -> None:
    torch.manual_seed(0)
    mixer = Linformer(D, 4, seq_len=12, compressed=3)
    leaking = nn.Sequential(Embedding(9, D), mixer, Linear(D, 9))
    with pytest.raises(AssertionError, match=r"output at position 0 .* input at position 1"):
        assert_causal(leaking, 9, seq_len=12)
    blockwise = BlockwiseAttention(D, 4, block=4, compressed=2)
    assert_causal(nn.Sequential(Embedding(9, D), blockwise, Linear(D, 9)), 9, seq_len=12)


def test_the_language_model_of_the_library_looks_ahead_too() -> None:
    torch.manual_seed(0)
    model = LinformerLM(num_tokens=20, dim=16, seq_len=16, depth=2, heads=2, k=4)
    leak = find_leak(model, 20, seq_len=16)
    assert leak is not None and (leak.position, leak.source) == (0, 1)


def test_a_decoder_refuses_linformer_by_name_when_it_is_built() -> None:
    message = "Linformer compresses all positions .* cannot stand in a decoder .* 'blockwise-lin"
    with pytest.raises(ValueError, match=message):
        ModelConfig.uniform(9, 12, 2, D, 4, 24, mixer=LinformerConfig(4))
    with pytest.raises(ValueError, match="unknown mixer 'linformer'; did you mean 'blockwise-lin"):
        ModelConfig.uniform(9, 12, 2, D, 4, 24, mixer="linformer")
    layer = Linformer(D, 4, seq_len=12, compressed=3)
    for call in (lambda: layer.make_cache(1, 12), lambda: layer(text(), cache=object())):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match="a column for each of 12 tokens, got 13"):
        layer(torch.zeros(1, 13, D))
    assert LinformerConfig.kind not in PARTS
