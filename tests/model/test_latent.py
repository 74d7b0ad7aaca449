"""A multi-head model made a latent one: what is lost by how much, by other means, by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from llmtutor.model.config import ModelConfig
from llmtutor.model.latent import as_complex, compress_heads, factors, from_complex
from llmtutor.model.presets import preset
from llmtutor.model.transformer import Transformer

SIZES = {"vocab_size": 17, "max_seq_len": 12, "n_layers": 2, "d_model": 24, "n_heads": 4}
LLAMA = preset("llama", **SIZES, d_ff=24)
CONFIGS = {
    "no position": LLAMA.replace(position="none"),
    "learned positions, shared keys, wide": LLAMA.replace(
        position="learned", n_kv_heads=2, head_dim=5, scale=0.7, tie_weights=True
    ),
}
TURNING = {
    pairing: LLAMA.replace(rope_fraction=2 / 3, rope_pairing=pairing)
    for pairing in ("half", "interleaved")
}
IDS = torch.randint(17, (3, 12), generator=torch.Generator().manual_seed(0))


def model(config: ModelConfig) -> Transformer:
    made = Transformer(config).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = 0.3 * noise + (parameter.ndim == 1)
    return made.requires_grad_(False)


def lost(after: Transformer, before: Transformer) -> float:
    return float((after(IDS) - before(IDS)).detach().square().mean().sqrt())


@pytest.mark.parametrize("texts", [None, IDS], ids=["weights", "texts"])
@pytest.mark.parametrize("case", CONFIGS)
def test_full_rank_is_the_same_function_and_each_step_below_loses_more(case, texts) -> None:
    before = model(CONFIGS[case])
    kept = {name: weight.clone() for name, weight in before.state_dict().items()}
    full = 20 if "shared" in case else 24  # what the heads make, or what they make it from
    after = compress_heads(before, full, texts)
    torch.testing.assert_close(after(IDS), before(IDS), rtol=1e-10, atol=1e-10)
    assert all(torch.equal(weight, kept[name]) for name, weight in before.state_dict().items())
    losses = [lost(compress_heads(before, rank, texts), before) for rank in (full, 16, 8, 1)]
    assert losses == sorted(losses) and losses[1] > 1e-2
    cache = after.make_caches(3, 12)
    pieces = [after(part, cache=cache) for part in IDS.split([5, 1, 6], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), before(IDS), rtol=1e-9, atol=1e-9)
    assert cache.nbytes == 2 * 3 * 12 * full * 8


@pytest.mark.parametrize("pairing", TURNING)
def test_turned_keys_that_are_multiples_of_each_other_are_shared_without_loss(pairing) -> None:
    """Any turn and size for each head and pair: what multiplying by one complex number does."""
    before = model(TURNING[pairing])
    assert lost(compress_heads(before, 24), before) > 1e-2  # each its own: something is lost
    generator = torch.Generator().manual_seed(3)
    for block in before.blocks:
        heads = block.mixer.key.weight.data.unflatten(0, (4, 6))
        parts = torch.randn(2, 4, 2, 1, generator=generator, dtype=torch.float64)
        first = as_complex(heads[0, :4], pairing)
        heads[:, :4] = from_complex(torch.complex(*parts) * first, pairing)
    assert lost(compress_heads(before, 24), before) <= 1e-10
    assert compress_heads(before, 7).make_caches(1, 1).nbytes == 2 * (7 + 4) * 8


def test_two_factors_are_the_best_that_numpy_finds() -> None:
    generator = torch.Generator().manual_seed(2)
    weight, root = torch.randn(2, 9, 9, generator=generator, dtype=torch.float64)
    for inputs in (torch.eye(9, dtype=torch.float64), root):
        up, down = factors(weight, 4, inputs)
        missed = np.linalg.norm(((weight - up @ down) @ inputs).numpy())
        rest = np.linalg.svd((weight @ inputs).numpy(), compute_uv=False)[4:]
        assert missed == pytest.approx(np.sqrt((rest**2).sum()), rel=1e-9)


def test_texts_bring_back_the_keys_and_values_that_they_have() -> None:
    before = model(CONFIGS["no position"])
    inputs: list[Tensor] = []
    before.blocks[0].mixer.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    before(IDS)
    heads = before.blocks[0].mixer
    want = torch.cat((heads.key(inputs[0]), heads.value(inputs[0])), dim=-1)
    missed = []
    for texts in (None, IDS):
        mixer = compress_heads(before, 6, texts).blocks[0].mixer
        latent = mixer.latent(inputs[0])
        got = torch.cat((mixer.key_up(latent), mixer.value_up(latent)), dim=-1)
        missed.append(float((got - want).detach().square().sum()))
    assert missed[1] < missed[0]


@pytest.mark.parametrize(
    ("changes", "rank", "message"),
    [
        ({}, 8, "block 0 turns all 6 components of a head.*rope_fraction below 1"),
        ({"position": "alibi"}, 8, "block 0 has position 'alibi', latent attention 'rope' or"),
        ({"position": "none", "window": 4}, 8, "block 0 has window = 4, which latent attention"),
        ({"position": "none", "qk_norm": "rmsnorm"}, 8, "block 0 has qk_norm"),
        ({"position": "none", "bias": True}, 8, "block 0 has bias = True"),
        ({"mixer": "mla"}, 8, "only attention has heads to compress, block 0 has 'mla'"),
        ({"position": "none"}, 25, "kv_rank must be at most 24 in block 0"),
        ({"position": "none"}, 0, "kv_rank must be at least 1"),
    ],
)
def test_what_cannot_be_compressed_is_refused(changes, rank, message) -> None:
    with pytest.raises(ValueError, match=message):
        compress_heads(Transformer(LLAMA.replace(**changes)), rank)
