"""The MLP over a window: by hand, as a convolution of torch, and trained down to counted pairs."""

import doctest

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llmtutor.model import mlp
from llmtutor.model.language_modelling import NGram
from llmtutor.model.mlp import WindowMLP
from llmtutor.optim import make_optimizer
from llmtutor.optim.groups import split
from llmtutor.train.step import train_step

VOCAB = 7
IDS = torch.from_numpy(np.random.default_rng(0).integers(VOCAB, size=(3, 6)))


def model(window: int = 3, d_embedding: int = 4, d_hidden: int = 5) -> WindowMLP:
    torch.manual_seed(0)
    net = WindowMLP(VOCAB, window, d_embedding, d_hidden)
    for bias in (net.hidden.bias, net.head.bias):
        nn.init.normal_(bias)
    return net


def test_examples() -> None:
    assert doctest.testmod(mlp).failed == 0


def test_equation_1_of_the_paper_place_by_place() -> None:
    net = model()
    c, h, d, u, b = (p.detach().double().numpy() for p in net.parameters())
    for row, logits in zip(IDS.numpy(), net(IDS).detach().numpy(), strict=True):
        text = [VOCAB, VOCAB, *row]
        for t in range(len(row)):
            x = np.concatenate([c[token] for token in text[t : t + 3]])
            np.testing.assert_allclose(logits[t], b + u @ np.tanh(d + h @ x), atol=1e-5)


def test_it_is_a_causal_convolution_over_the_embeddings() -> None:
    net = model()
    kernel = net.hidden.weight.view(5, 3, 4).mT  # (d_hidden, d_embedding, window)
    x = net.embedding(F.pad(IDS, (2, 0), value=VOCAB)).mT
    hidden = F.conv1d(x, kernel, net.hidden.bias).mT.tanh()
    torch.testing.assert_close(net(IDS), F.linear(hidden, net.head.weight, net.head.bias))


def test_with_a_window_of_one_it_learns_the_counted_pairs() -> None:
    text = np.random.default_rng(0).choice(VOCAB, size=400, p=np.arange(1, VOCAB + 1) / 28)
    text[1::2] = (text[::2] + 1) % VOCAB  # every second token is known from the one before
    ids = torch.from_numpy(text)[None]
    net = model(window=1, d_embedding=8, d_hidden=32)
    optimizer = make_optimizer(net, "adamw", 0.02, weight_decay=0.0)
    for _ in range(300):
        train_step(net, [(ids[:, :-1], ids[:, 1:])], optimizer)
    counted = NGram(2, VOCAB, smoothing=0).fit(text)
    with torch.no_grad():
        found = net(torch.arange(VOCAB)[:, None]).softmax(-1)[:, 0]
    for token in range(VOCAB):
        np.testing.assert_allclose(found[token], counted.next_probs([token]), atol=0.03)


def test_a_place_sees_its_window_and_nothing_else() -> None:
    net, changed = model(), IDS.clone()
    changed[:, 3] = (changed[:, 3] + 1) % VOCAB
    differs = (net(IDS) != net(changed)).any(-1).any(0)
    assert differs.tolist() == [False, False, False, True, True, True]
    changed = IDS.clone()
    changed[:, 0] = (changed[:, 0] + 1) % VOCAB
    assert (net(IDS) != net(changed)).any(-1).any(0).tolist() == [True, True, True] + 3 * [False]


def test_an_optimizer_tells_its_parts_apart() -> None:
    parts = {name: [tuple(p.shape) for p in part] for name, part in split(model()).items()}
    assert parts == {"hidden": [(5, 12)], "head": [(7, 5)], "rest": [(8, 4), (5,), (7,)]}


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        WindowMLP(VOCAB, 0, 4, 5)
    for ids in (IDS[0], IDS[:, :0]):
        with pytest.raises(ValueError, match=r"ids must be \(batch, seq\) with at least one token"):
            model()(ids)
    with pytest.raises(ValueError, match=r"0 … 6 .vocabulary of 7., got 7"):
        model()(torch.tensor([[VOCAB]]))
