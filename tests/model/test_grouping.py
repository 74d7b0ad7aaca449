"""A multi-head model made a grouped one: the same function where nothing is lost, and by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from llmtutor.interop.hf import save_hf
from llmtutor.layers.attention import Attention, first_heads, mean_pool_heads
from llmtutor.layers.mixer import MixerConfig
from llmtutor.layers.part import Costs, Load, Site
from llmtutor.model.config import ModelConfig
from llmtutor.model.grouping import group_heads
from llmtutor.model.presets import preset
from llmtutor.model.transformer import Transformer

SIZES = {"vocab_size": 17, "max_seq_len": 12, "n_layers": 2, "d_model": 32, "n_heads": 8}
CONFIGS = {
    "llama": preset("llama", **SIZES, d_ff=24),
    "llama, tied, norms of q and k": preset(
        "llama", **SIZES, d_ff=24, tie_weights=True, qk_norm="rmsnorm"
    ),
    "gpt2": preset("gpt2", **SIZES, d_ff=24),
    "shaw": preset("llama", **SIZES, d_ff=24, position="shaw"),
    "t5": preset("llama", **SIZES, d_ff=24, position="t5"),
}
IDS = torch.randint(17, (3, 12), generator=torch.Generator().manual_seed(0))


def model(config: ModelConfig) -> Transformer:
    """Float64, every weight (biases and gains as well) a number of its own."""
    made = Transformer(config).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = 0.3 * noise + (parameter.ndim == 1)
    return made


def equal_in_groups(made: Transformer, n_kv_heads: int) -> Transformer:
    """Each head of keys and values overwritten with the first of its group, by a plain loop."""
    mixer = made.config.blocks[0].mixer
    width, group = mixer.width(made.config.d_model), mixer.n_heads // n_kv_heads
    for name, weight in made.named_parameters():
        if ".key." in name or ".value." in name:
            for head in range(mixer.n_heads):
                first = head // group * group * width
                weight.data[head * width : (head + 1) * width] = weight.data[first : first + width]
    return made


@pytest.mark.parametrize("case", CONFIGS)
@pytest.mark.parametrize("pool", [mean_pool_heads, first_heads])
def test_as_many_heads_as_before_is_the_same_model(case, pool) -> None:
    before = model(CONFIGS[case])
    after = group_heads(before, 8, pool)
    assert after.config == before.config.replace(n_kv_heads=8)
    assert after.state_dict().keys() == before.state_dict().keys()
    assert all(torch.equal(w, after.state_dict()[n]) for n, w in before.state_dict().items())
    assert torch.equal(after(IDS), before(IDS))


@pytest.mark.parametrize("case", CONFIGS)
@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("pool", [mean_pool_heads, first_heads])
def test_heads_that_were_equal_in_groups_lose_nothing(case, n_kv_heads, pool) -> None:
    before = equal_in_groups(model(CONFIGS[case]), n_kv_heads)
    after = group_heads(before, n_kv_heads, pool)
    torch.testing.assert_close(after(IDS), before(IDS), rtol=1e-12, atol=1e-12)
    other = group_heads(model(CONFIGS[case]), n_kv_heads, pool)
    assert (other(IDS) - model(CONFIGS[case])(IDS)).abs().max() > 1e-3  # else it shows nothing


@pytest.mark.parametrize(
    ("pool", "want"), [(mean_pool_heads, [3.0, 5.0]), (first_heads, [1.0, 2.0])]
)
def test_two_heads_by_hand(pool, want) -> None:
    """Heads (1, 2) and (5, 8) of keys, times 10 of values; one column is as good as another."""
    sizes = {**SIZES, "d_model": 4, "n_heads": 2, "n_layers": 1}
    before = model(preset("gpt2", **sizes, d_ff=4))
    mixer = before.blocks[0].mixer
    rows = torch.tensor([1.0, 2.0, 5.0, 8.0], dtype=torch.float64)
    for layer, factor in ((mixer.key, 1), (mixer.value, 10)):
        layer.weight.data, layer.bias.data = factor * rows[:, None].expand(4, 4), -factor * rows
    after = group_heads(before, 1, pool).blocks[0].mixer
    hand = torch.tensor(want, dtype=torch.float64)
    assert torch.equal(after.key.weight, hand[:, None].expand(2, 4))
    assert torch.equal(after.value.weight, 10 * hand[:, None].expand(2, 4))
    assert torch.equal(after.key.bias, -hand) and torch.equal(after.value.bias, -10 * hand)
    assert torch.equal(after.query.weight, mixer.query.weight)


def test_groups_are_neighbours_and_can_be_grouped_again() -> None:
    before = model(CONFIGS["llama"])
    key = before.blocks[1].mixer.key.weight
    four = group_heads(before, 4)
    torch.testing.assert_close(four.blocks[1].mixer.key.weight[4:8], (key[8:12] + key[12:16]) / 2)
    at_once, in_steps = group_heads(before, 2), group_heads(four, 2)
    assert in_steps.config == at_once.config
    torch.testing.assert_close(in_steps(IDS), at_once(IDS), rtol=1e-12, atol=1e-12)


def test_transformers_runs_the_grouped_model_the_same(tmp_path) -> None:
    after = group_heads(Transformer(CONFIGS["llama"]), 2)
    save_hf(after, tmp_path)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path)
    assert theirs.config.num_key_value_heads == 2
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, after(IDS), rtol=0, atol=1e-5)


def test_the_copy_is_its_own_and_the_world_is_as_before() -> None:
    before = model(CONFIGS["llama, tied, norms of q and k"]).eval()
    kept = {name: weight.clone() for name, weight in before.state_dict().items()}
    torch.manual_seed(5)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    after = group_heads(before, 2)
    assert torch.equal(torch.rand(1), drawn)  # no number of the global generator was used up
    assert not after.training and after.head.weight is after.embedding.weight
    assert all(p.requires_grad and p.dtype == torch.float64 for p in after.parameters())
    assert group_heads(before.train(), 2).training
    for parameter in after.parameters():
        parameter.data.zero_()
    assert all(torch.equal(w, kept[n]) for n, w in before.state_dict().items())


@pytest.mark.parametrize("n_kv_heads", [0, -1, 3, 16])
def test_refuses_heads_that_do_not_divide(n_kv_heads: int) -> None:
    with pytest.raises(ValueError, match=f"divide the model's 8 heads.*got {n_kv_heads}"):
        group_heads(Transformer(CONFIGS["llama"]), n_kv_heads)
    four = group_heads(Transformer(CONFIGS["llama"]), 4)
    with pytest.raises(ValueError, match="divide the model's 4 heads of keys and values, got 8"):
        group_heads(four, 8)


def test_refuses_a_mixer_without_such_heads() -> None:
    class NoHeads(MixerConfig):
        kind = "ssm"

        def build(self, site: Site) -> Attention:
            return Attention(site.d_model, 2)

        def costs(self, site: Site, load: Load) -> Costs:
            return Costs()

    made = Transformer(CONFIGS["llama"].replace(mixer=NoHeads()))
    with pytest.raises(ValueError, match="only attention has heads to group, block 0 has 'ssm'"):
        group_heads(made, 2)


@pytest.mark.parametrize(
    "pool", [lambda w, n, m: w, lambda w, n, m: w[:3], lambda w, n, m: w[:8].flatten()]
)
def test_refuses_a_pool_that_gives_another_shape(
    pool: Callable[[Tensor, int, int], Tensor],
) -> None:
    with pytest.raises(RuntimeError, match=r"size mismatch for blocks.0.mixer.key.weight"):
        group_heads(Transformer(CONFIGS["llama"]), 2, pool)
