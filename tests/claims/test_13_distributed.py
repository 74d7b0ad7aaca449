"""What chapter 13 says in numbers that no output shows."""

import pytest
import torch

from llmtutor.exercises.distributed import share
from llmtutor.layers.ffn import GatedMLPConfig
from llmtutor.layers.part import Site
from llmtutor.model.accounting import parameters
from llmtutor.model.presets import build, preset

PEAK, MACHINE, CARD = 989e12, 450e9, 50e9


def kept_a_token(n_layers: int, d_model: int, d_ff: int, seq: int = 61) -> float:
    """Bytes that autograd keeps of each token, with products in 16 bits and the rest in 32."""
    sizes = {"n_layers": n_layers, "d_model": d_model, "d_ff": d_ff, "n_heads": 4}
    model = build(preset("llama", vocab_size=64, max_seq_len=seq, **sizes))
    kept = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.nbytes() % seq == 0:  # a row for each token, so not a weight
            kept[storage.data_ptr()] = storage
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        model(torch.zeros(1, seq, dtype=torch.int64))
    return sum(storage.nbytes() for storage in kept.values()) / seq


@pytest.mark.parametrize(("d_model", "d_ff"), [(256, 704), (256, 1024), (512, 704)])
def test_activations_of_a_layer(d_model: int, d_ff: int) -> None:
    counted = kept_a_token(2, d_model, d_ff) - kept_a_token(1, d_model, d_ff)
    assert counted == pytest.approx(44 * d_model + 8 * d_ff, rel=0.02)


def test_a_pipeline_is_idle_while_it_fills_and_drains() -> None:
    """Micro-batch i reaches stage j in slot i + j; backwards it is the same again."""
    for micro_batches, percent in ((8, 47), (32, 18)):
        slots = {(i + j, j) for i in range(micro_batches) for j in range(8)}
        length = max(slot for slot, _ in slots) + 1
        assert round(100 * (1 - len(slots) / (8 * length))) == percent


def test_shares_of_a_cut_part_add_up_to_the_layer() -> None:
    torch.manual_seed(0)
    layer = GatedMLPConfig(d_ff=24).build(Site(16, 8)).double()
    x = torch.randn(5, 16, dtype=torch.float64)
    weights = layer.gate.weight, layer.up.weight, layer.down.weight
    shares = [share(x, *weights, rank, 4) for rank in range(4)]
    torch.testing.assert_close(sum(shares), layer(x))


def test_how_wide_a_layer_must_be() -> None:
    """Where 6 · 12 d² / R operations take as long as four all-reduces of d numbers in 16 bits."""
    for bandwidth, width in ((MACHINE, 3_419), (CARD, 30_769)):
        computing = 6 * 12 * width**2 / 8 / PEAK
        sending = 4 * 2 * 7 / 8 * 2 * width / bandwidth
        assert computing == pytest.approx(sending, rel=1e-3)


def test_seventy_billion_need_fourteen_gpus() -> None:
    assert 16 * 70e9 / 80e9 == 14


def test_groups_of_published_runs() -> None:
    """Tensor, pipeline, context and data parallelism multiply to the number of GPUs."""
    assert 8 * 64 * 6 == 3_072
    assert 8 * 16 * 128 == 8 * 16 * 16 * 8 == 16_384
    assert 16 * 128 == 2_048
    batch = 16 * 1024**2  # tokens of a step
    assert (batch / 16_384, batch / 128) == (1_024, 131_072)


def test_seven_billion_is_what_the_page_builds() -> None:
    llama = preset("llama", n_layers=32, d_model=4096, n_heads=32, d_ff=11008)
    assert round(16 * parameters(llama).total / 1e9) == 108
