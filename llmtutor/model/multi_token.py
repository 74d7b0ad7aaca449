"""Chapter 21, generation: a second head, which predicts the token after the next one.

The last hidden state of a model is asked for one token. Here one more block, which is also told
what that token was, is asked for the one behind it: a second loss while the model is trained, and
a draft that costs no model of its own while it writes (``generate.drafts``).
"""

from contextlib import nullcontext
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.checks import check_number
from llmtutor.layers.basic import Embedding, Linear
from llmtutor.layers.extras import Extras, joined, named, split_extras
from llmtutor.layers.mixer import Cache
from llmtutor.layers.part import Costs, Load
from llmtutor.model.caches import Caches
from llmtutor.model.config import ModelConfig
from llmtutor.model.losses import Batch, CrossEntropy, Losses, summed_cross_entropy
from llmtutor.model.transformer import Transformer


class SecondHead(nn.Module):
    """From hidden states and the tokens that follow them to the states of one more block.

    ``h'_t = block(M [norm(h_t); norm(e_{t+1})])``, DeepSeek-AI 2024 (DeepSeek-V3), equations 21 and
    22 at depth 1: h_t is the residual stream behind the model's last block, e_{t+1} the embedding
    of the next token, M (d_model, 2 d_model). The block is one more of the model's last kind; it
    mixes positions, so it keeps a cache of its own. Matrices start as their layers have them.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        last, width = config.blocks[-1], config.d_model
        self.norm_hidden, self.norm_next = (last.norm.build(width) for _ in range(2))
        self.projection = Linear(2 * width, width)
        self.block = last.build(config.site.at(config.n_layers))
        self.norm = nn.Identity() if config.norm is None else config.norm.build(width)

    def forward(
        self,
        hidden: Float[Tensor, "batch seq d_model"],
        following: Float[Tensor, "batch seq d_model"],
        *,
        cache: Cache | None = None,
    ) -> tuple[Float[Tensor, "batch seq d_model"], Extras]:
        """What the output layer reads, and what else the block returns.

        ``following`` are the embeddings of the tokens one position further; with a ``cache`` both
        go on with it.
        """
        pairs = torch.cat([self.norm_hidden(hidden), self.norm_next(following)], dim=-1)
        x, extras = split_extras(self.block(self.projection(pairs), cache=cache))
        return self.norm(x), extras


class MultiToken(nn.Module):
    """A ``Transformer`` and a ``SecondHead``; embedding and output layer are the model's, shared.

    Called as the model is, it answers as the model does. The second head speaks in ``ahead`` alone,
    and acts on the weights through ``multi_token_losses``, where its loss counts ``weight`` times
    as much as the plain one (λ of DeepSeek-AI 2024, equation 25: 0.3, later 0.1).

    Raises:
        ValueError: ``weight`` not above 0.
    """

    def __init__(self, model: Transformer, weight: float = 0.3) -> None:
        super().__init__()
        self.model = model
        self.weight = check_number("weight", weight, above=0)
        self.second = SecondHead(model.config)

    @property
    def config(self) -> ModelConfig:
        """The model's."""
        return self.model.config

    @property
    def embedding(self) -> Embedding:
        """The model's, which the second head looks tokens up in as well."""
        return self.model.embedding

    def forward(
        self,
        ids: Int[Tensor, "batch seq"],
        *,
        cache: Caches | None = None,
        logits_to_keep: int | None = None,
    ) -> Float[Tensor, "batch logits_to_keep vocab"]:
        """The model's own logits."""
        return self.read(ids, cache=cache, logits_to_keep=logits_to_keep)[0]

    def read(
        self,
        ids: Int[Tensor, "batch seq"],
        *,
        cache: Caches | None = None,
        logits_to_keep: int | None = None,
    ) -> tuple[
        Float[Tensor, "batch logits_to_keep vocab"], Float[Tensor, "batch seq d_model"], Extras
    ]:
        """The model's logits, the hidden state of every position behind its last block, extras."""
        seen: list[Tensor] = []
        # A hook leaves the model's path of reading as it is.
        hook = self.model.blocks[-1].register_forward_hook(
            lambda block, given, result: seen.append(split_extras(result)[0])
        )
        try:
            logits, extras = self.model(
                ids, cache=cache, logits_to_keep=logits_to_keep, with_extras=True
            )
        finally:
            hook.remove()
        return logits, seen[0], extras

    def ahead(
        self,
        hidden: Float[Tensor, "batch seq d_model"],
        following: Int[Tensor, "batch seq"],
        *,
        cache: Cache | None = None,
    ) -> tuple[Float[Tensor, "batch seq vocab"], Extras]:
        """Logits of the token after ``following``, which are the tokens after ``hidden``.

        So from h_t and token t + 1 those of token t + 2. A factor on the embeddings
        (``embedding_scale``) would change nothing, since they are normalised.
        """
        x, extras = self.second(hidden, self.model.embedding(following), cache=cache)
        logits = self.model.head(x)
        if (bound := self.config.logit_softcap) is not None:
            logits = bound * (logits / bound).tanh()
        return logits, named(extras, "second")

    def make_caches(
        self, batch: int, max_len: int | None = None, starts: Int[Tensor, " batch"] | None = None
    ) -> Caches:
        """Those of the model, without the second head's."""
        return self.model.make_caches(batch, max_len, starts)


def multi_token_losses(
    model: nn.Module,
    batch: Batch,
    precision: torch.dtype = torch.float32,
    cross_entropy: CrossEntropy = summed_cross_entropy,
) -> Losses:
    """As ``batch_losses``, with the second head's mean loss times its weight as a term beside it.

    ``nats`` stays the plain loss. Each position t of a text has the pair h_t, token t + 1; its
    target is token t + 2, which the last one lacks. (The paper divides by all positions instead of
    those that have a target.) The term is called ``multi_token``; the second loss as it is, in
    nats a token, is among the statistics.

    Raises:
        ValueError: a model that is no ``MultiToken``, texts of less than two tokens.
    """
    if not isinstance(model, MultiToken):
        raise ValueError(
            f"expected a MultiToken, got {type(model).__name__}: put the head on with "
            "MultiToken(model)"
        )
    inputs, targets = batch
    if inputs.shape[1] < 2:
        raise ValueError(
            f"a second head needs texts of at least two tokens, got {inputs.shape[1]}: take a "
            "larger seq_len"
        )
    plain = precision == torch.float32
    with nullcontext() if plain else torch.autocast(inputs.device.type, precision):
        logits, hidden, extras = model.read(inputs)
        ahead, more = model.ahead(hidden, targets)
    if not plain:
        logits, ahead = logits.float(), ahead.float()
    nats = cross_entropy(logits.flatten(0, 1), targets.flatten())
    after_next = targets[:, 1:]
    second = cross_entropy(ahead[:, :-1].flatten(0, 1), after_next.flatten()) / after_next.numel()
    own = Extras({"multi_token": model.weight * second}, {"second_loss": second.detach()})
    extras = joined(joined(extras, more), own)
    total = nats
    for term in extras.losses.values():
        total = total + targets.numel() * term
    return Losses(total, nats, extras.losses, extras.statistics)


def second_head_costs(config: ModelConfig, seq: int) -> Costs:
    """What a second head adds to a model: parameters, FLOPs for one token after seq − 1, cache.

    The products of the shared output layer are done a second time, and count. Activations are not
    counted.
    """
    load, width, last = Load(1, seq), config.d_model, config.blocks[-1]
    site = config.site.at(config.n_layers)
    total = last.costs(site, load)
    for norm in (last.norm, last.norm, config.norm):
        total += Costs() if norm is None else norm.costs(width, load.tokens_bytes)
    own = 2 * width**2 + last.mixer.position_table(site)[1]
    total += Costs(own, own, 4 * width**2 + 2 * config.vocab_size * width)
    return replace(total, activation_bytes=0)
