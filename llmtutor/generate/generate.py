"""Chapter 21, generation: token after token, for a batch of prompts."""

from collections.abc import Callable

import torch

from llmtutor.generate.guide import Guidance, Guide
from llmtutor.generate.reader import Model, Prompts, Reader, prompt_ids
from llmtutor.generate.sampling import Sampler
from llmtutor.generate.stopping import Stop, ends


@torch.inference_mode()
def generate(
    model: Model,
    prompts: Prompts,
    *,
    max_new_tokens: int,
    sampler: Sampler,
    n_ids: int | None = None,
    stop: Stop = (),
    guide: Guide | None = None,
    generator: torch.Generator | None = None,
    on_token: Callable[[int, int], None] | None = None,
    use_cache: bool = True,
) -> list[list[int]]:
    """The new ids of each row, its prompt not included.

    A row ends with an id of ``stop``, or where ``stop`` says so (``StopTexts``), or after
    ``max_new_tokens``; the id that ends it is its last one. Prompts
    may be of different lengths; a row goes on as it would alone, but draws depend on its place in
    the batch. ``on_token(row, id)`` is called as each id is known. With ``generator`` the draws
    are repeatable. ``model`` is a ``Transformer``, or ``Compiled`` for long texts of small models.
    A ``guide`` rules out tokens before the sampler chooses, and ends a row that is whole.
    ``n_ids`` is the tokenizer's ``vocab_size``: where the model's vocabulary is padded beyond, the
    ids behind belong to no token and are never chosen.

    >>> from llmtutor.model.presets import build, preset
    >>> _ = torch.manual_seed(0)
    >>> model = build(preset("llama-nano", vocab_size=65))
    >>> new = generate(model, [[1, 2, 3], [4]], max_new_tokens=5, sampler=Sampler(top_k=10))
    >>> [len(row) for row in new]
    [5, 5]

    Raises:
        ValueError: no prompt or an empty one, ids that are no token's, prompts that with their
            new tokens are longer than the context; more ``n_ids`` than the model has; logits that
            give no distribution; a ``guide`` that leaves no token.
    """
    prompt = prompt_ids(model, prompts, max_new_tokens, n_ids)
    batch, longest = prompt.shape
    ids = torch.cat([prompt, prompt.new_zeros(batch, max_new_tokens)], dim=1)
    read = Reader(model, prompt, ids.shape[1], use_cache=use_cache, n_ids=n_ids)
    new: list[list[int]] = [[] for _ in range(batch)]
    going, has_ended = list(range(batch)), ends(stop)
    guidance = None if guide is None else Guidance(guide, batch)
    for end in range(longest, ids.shape[1]):
        text = ids[:, :end]
        logits, left = read(text)[:, -1], ids.shape[1] - end - 1
        if guidance is not None:
            logits = guidance.filtered(logits, left)
        ids[:, end] = sampler.choose(logits, text, generator)
        # A row that has ended is carried on unseen, until the last one has.
        chosen = ids[:, end].tolist()
        for row in going:
            new[row].append(chosen[row])
            if on_token is not None:
                on_token(row, chosen[row])
            if guidance is not None:
                guidance.told(row, chosen[row])
        going = [row for row in going if not has_ended(new[row])]
        if guidance is not None:
            going = [row for row in going if not guidance.is_done(row, left)]
        if not going:
            break
    return new
