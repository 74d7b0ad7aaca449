"""A draft that costs nothing beside plain decoding, on the trained model of the repository.

    python benchmarks/speculation.py            # a result, also written to data/results
    python benchmarks/speculation.py --quick    # a first look, not a result

The model is the last rung of the staircase. One unit of work is 96 new tokens after each of four
prompts of 32 tokens out of the held-out plays of Shakespeare, one text at a time, with a cache and
one thread: `generate`, and `speculative` with counts of three tokens in the training plays and with
what followed in the text before. Greedily, where all must write the same ids, which is checked
first, and drawn, where they write other texts of the same distribution. In turn, after a warm-up.

Beside it: the time of a pass over several tokens in parts of that over one, which a draft lives
on; and for each draft the share of accepted proposals and the tokens that a pass brings. The last
line is one JSON object.
"""

import json
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import torch
from _measure import Times, from_command_line, in_turn, machine, ratio, record, timed, without_first

from llmtutor.data.corpora import load_corpus
from llmtutor.experiments.kept import load_kept
from llmtutor.generate.free_drafts import LookupDraft, NGramDraft
from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler
from llmtutor.generate.speculative import Speculation, speculative
from llmtutor.model.language_modelling import NGram
from llmtutor.model.transformer import Transformer

PROMPT, NEW, TEXTS = 32, 96, 4
N_DRAFT, ORDER = 3, 3
PASSES = (1, 2, 3, 4, 6, 8)
PEER = "plain"
WAYS = {"greedy": Sampler(greedy=True), "sampled": Sampler()}
Drafts = dict[str, NGramDraft | LookupDraft]


def pass_times(model: Transformer, rounds: int) -> Times:
    """Seconds of a pass over so many tokens behind 64 others."""
    times: Times = {}
    ids = torch.randint(model.config.vocab_size, (1, 64 + max(PASSES)))
    caches = model.make_caches(1, ids.shape[1], None)
    with torch.inference_mode():
        model(ids[:, :64], cache=caches, logits_to_keep=1)
        for _ in range(rounds + 1):
            for n in PASSES:
                caches.crop(64)
                new = ids[:, 64 : 64 + n]
                timed(times, str(n), partial(model, new, cache=caches, logits_to_keep=n))
    return without_first(times)


def works(
    model: Transformer, drafts: Drafts, prompts: list[list[int]], sampler: Sampler
) -> dict[str, Callable[[], list[list[int]] | list[Speculation]]]:
    settings = {"max_new_tokens": NEW, "sampler": sampler}

    def plain() -> list[list[int]]:
        generator = torch.Generator().manual_seed(0)
        return [generate(model, [p], generator=generator, **settings)[0] for p in prompts]  # type: ignore[arg-type]

    def ahead(draft: NGramDraft | LookupDraft) -> list[Speculation]:
        options = {**settings, "generator": torch.Generator().manual_seed(0), "n_draft": N_DRAFT}
        return [speculative(model, draft, p, **options) for p in prompts]  # type: ignore[arg-type]

    made = {name: partial(ahead, draft) for name, draft in drafts.items()}
    return {PEER: plain, **made}


def main(quick: bool) -> None:
    about = machine("torch")
    torch.set_num_threads(1)
    if quick:
        print("QUICK: few rounds. A first look, not a result.")
    model, tokenizer = load_kept()
    model.eval()
    text = load_corpus("shakespeare")
    train, valid = (np.array(tokenizer.encode(part)) for part in (text.train, text.valid))
    places = range(0, len(valid) - PROMPT, len(valid) // TEXTS)
    prompts = [valid[i : i + PROMPT].tolist() for i in list(places)[:TEXTS]]
    counts = NGram(ORDER, tokenizer.vocab_size).fit(train)
    drafts: Drafts = {"ours": NGramDraft(counts), "ours, lookup": LookupDraft(tokenizer.vocab_size)}
    figures: dict[str, object] = {"benchmark": "speculation", "quick": quick}
    passes = pass_times(model, 20 if quick else 200)
    figures["pass_of_n_to_pass_of_1"] = {n: ratio(passes, n) for n in passes}
    print("a pass over n tokens, to one over one:", figures["pass_of_n_to_pass_of_1"])
    seconds: dict[str, Times] = {}
    for way, sampler in WAYS.items():
        todo = works(model, drafts, prompts, sampler)
        for name in drafts:
            made = [one for one in todo[name]() if isinstance(one, Speculation)]
            if sampler.greedy and [one.ids for one in made] != todo[PEER]():
                raise AssertionError(f"expected the same ids with the draft {name!r}")
            accepted = sum(one.n_accepted for one in made)
            looked_at = accepted + sum(one.n_rejected for one in made)
            tokens = sum(len(one.ids) for one in made) / sum(one.n_rounds for one in made)
            figures[f"{way}_{name}_accepted"] = round(accepted / max(looked_at, 1), 3)
            figures[f"{way}_{name}_tokens_per_pass"] = round(tokens, 2)
        seconds[way] = times = in_turn(3 if quick else 30, todo)
        figures[f"{way}_time_to_{PEER}"] = ratio(times)
        for who, values in times.items():
            speed = TEXTS * NEW / median(values)
            figures[f"{way}_{who}_tokens_per_second"] = round(speed)
            print(f"  {way:10}{who:16}{speed:8,.0f} tokens/s{1 / ratio(times, who):7.2f}")
    if not quick:
        record("speculation", {**figures, **about}, seconds)
    print(json.dumps(figures))


if __name__ == "__main__":
    from_command_line(main, __doc__)
