"""Chapter 14, gqa: a published model with grouped queries, as it is and with its heads merged on.

stories260K has 4 heads of keys and values for 8 of queries. It is decoded and measured as
published, and again with the 4 heads averaged to 2 and to 1, without any further training.
"""

from itertools import islice
from typing import Any

import torch

from llmtutor.data.corpora import stream_documents
from llmtutor.evaluate.perplexity import evaluate_loss
from llmtutor.experiments.study import Study
from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler
from llmtutor.interop.llama2c import load_stories260k
from llmtutor.interop.llama2c_tokenizer import BOS
from llmtutor.model.grouping import group_heads

N_KV_HEADS = (4, 2, 1)
N_STORIES, LONGEST = 24, 256
"""Held-out stories of the sample that are read, and of each at most so many tokens."""
N_NEW = 200


def stories_run(*, n_kv_heads: int) -> dict[str, Any]:
    """Loss on stories, N_NEW tokens that greedy decoding writes, bytes of the cache in float32.

    The cache is that of one text as long as the context. 4 heads are the published model.

    Raises:
        FetchError: the weights or the stories are not here; it says where they come from.
    """
    model, tokenizer = load_stories260k()
    model = group_heads(model, n_kv_heads)
    documents = islice(stream_documents("tinystories-sample", "valid"), N_STORIES)
    rows = [torch.tensor([[BOS, *tokenizer.encode(d.strip())][:LONGEST]]) for d in documents]
    report = evaluate_loss(model, [(row[:, :-1], row[:, 1:]) for row in rows])
    (ids,) = generate(model, [[BOS]], max_new_tokens=N_NEW, sampler=Sampler(greedy=True))
    return {
        "valid_loss": round(report.nats_per_token, 4),
        "n_tokens": report.n_tokens,
        "text": tokenizer.decode([BOS, *ids]),
        "context": model.config.max_seq_len,
        "cache_bytes": model.make_caches(1).nbytes,
    }


STORIES = Study(
    name="stories260k",
    description="A published grouped model: its loss, text and cache, and with its heads merged on",
    runs=lambda plan: [{"n_kv_heads": n_kv_heads} for n_kv_heads in N_KV_HEADS],
    run=stories_run,
)
