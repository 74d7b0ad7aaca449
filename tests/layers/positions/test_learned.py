"""torch.nn.functional.embedding, a loop, gradcheck, and the end of the table."""

import pytest
import torch
import torch.nn.functional as F

from llmtutor.layers.positions import LearnedPosition


def test_equals_an_embedding_added():
    position = LearnedPosition(10, 6).double()
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    positions = torch.tensor([9, 0, 3, 3])
    want = x + F.embedding(positions, position.weight)
    assert torch.equal(position.embed(x, positions), want)


def test_equals_the_table_of_gpt2():
    """Sums and gradient as in `transformers`: only the rows in use are pulled."""
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=11, n_positions=10, n_embd=6, n_layer=1, n_head=2)
    model = GPT2Model(config).eval().double()
    position = LearnedPosition(10, 6).double()
    position.load_state_dict({"weight": model.wpe.weight.detach()}, strict=True)
    ids = torch.tensor([[1, 5, 7, 2]])
    seen = []
    model.h[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(ids)
    got = position.embed(model.wte(ids), torch.arange(4))
    torch.testing.assert_close(got, seen[0], rtol=1e-12, atol=1e-12)


def test_gradient():
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    position = LearnedPosition(5, 4).double()
    positions = torch.tensor([4, 1, 1])

    def function(x, weight):
        return torch.func.functional_call(Embed(position), {"inner.weight": weight}, (x, positions))

    assert torch.autograd.gradcheck(function, (x, position.weight))
    position.embed(x, positions).sum().backward()
    assert position.weight.grad[:, 0].tolist() == [0, 4, 0, 0, 2]  # batch of 2, position 1 twice


class Embed(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, positions):
        return self.inner.embed(x, positions)


def test_starts_as_gpt2_does():
    torch.manual_seed(0)
    weight = LearnedPosition(500, 200).weight
    assert weight.mean().item() == pytest.approx(0, abs=5e-4)
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)


def test_the_table_has_an_end():
    position = LearnedPosition(4, 6)
    assert position.embed(torch.zeros(4, 6), torch.arange(4)).shape == (4, 6)
    with pytest.raises(ValueError, match=r"position 4 is beyond .* max_seq_len = 4 .* 0 … 3; "):
        position.embed(torch.zeros(5, 6), torch.arange(5))
    for wrong in (7, -1):
        with pytest.raises(ValueError, match=f"position {wrong} is beyond"):
            position.embed(torch.zeros(1, 6), torch.tensor([wrong]))


@pytest.mark.parametrize(("sizes", "name"), [((0, 4), "max_seq_len"), ((4, 0), "d_model")])
def test_sizes(sizes, name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        LearnedPosition(*sizes)
