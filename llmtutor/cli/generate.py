"""``llmtutor generate``: a trained model writes on, token by token as they are drawn."""

import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import cyclopts
import numpy as np
import torch
from cyclopts import Parameter

from llmtutor.cli import Text
from llmtutor.data.readers import END_OF_TEXT
from llmtutor.fast.decoding import Compiled
from llmtutor.generate.beam import beam_search
from llmtutor.generate.free_drafts import LookupDraft, NGramDraft
from llmtutor.generate.generate import generate as generate_ids
from llmtutor.generate.guide import JSONGuide
from llmtutor.generate.sampling import Sampler
from llmtutor.generate.speculative import speculative
from llmtutor.generate.stopping import StopTexts, TextStream
from llmtutor.interop.hf import load_hf_with_tokenizer
from llmtutor.interop.hf.tokenizer import TOKENIZER, HFTokenizer, stop_ids
from llmtutor.interop.quantize.files import QUANTIZED, load_quantized
from llmtutor.model.language_modelling import NGram
from llmtutor.model.presets import build
from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer import Tokenizer, load_tokenizer
from llmtutor.tokenizer.files import utf8
from llmtutor.train.config import TrainConfig
from llmtutor.train.folder import CHECKPOINTS, read_state, run_folder
from llmtutor.train.text import load_text

NGRAM, LOOKUP = "ngram", "lookup"
"""Drafts that are no folder; ./ngram is one."""
ORDER, MOST_COUNTED = 3, 5_000_000
"""Tokens in a row that a draft counts, and tokens of the corpus that it counts them in."""

app = cyclopts.App(
    name="generate",
    help_epilogue='Example: llmtutor generate runs/first --prompt "HAMLET." --temperature 0.8',
)


@app.default
def generate(
    run: Path | None = None,
    /,
    *,
    hf: Path | None = None,
    prompt: Text | None = None,
    max_new_tokens: int = 200,
    sampler: Annotated[Sampler | None, Parameter(name="*")] = None,
    stop: Annotated[tuple[str, ...], Parameter(negative=(), allow_leading_hyphen=True)] = (),
    seed: int | None = None,
    draft: Path | None = None,
    n_draft: int = 4,
    json: Annotated[bool, Parameter(negative=())] = False,
    beams: int | None = None,
    length_penalty: float = 1.0,
    compile: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Let a trained model go on from a prompt.

    Without --prompt it is interactive: each line typed is a prompt of its own, an empty line or
    the end of the input ends it. A text ends at <|endoftext|> if the tokenizer has that, and where
    the model's context is full.

    Parameters
    ----------
    run
        Folder of a training run, or of one of its checkpoints, or of `llmtutor quantize`.
    hf
        Instead of a run: a folder as it comes from Hugging Face's hub, with config.json, the
        weights in safetensors, and tokenizer.json.
    prompt
        The text to go on from.
    max_new_tokens
        Tokens to write at most.
    stop
        A text before which the writing ends, such as "." or a name; it is not printed. Repeat the
        option for several.
    seed
        Makes the text repeatable: a whole number of 0 or more.
    draft
        What proposes tokens ahead: the folder of the run of a smaller model with the same
        tokenizer, or "ngram", counts of the run's own corpus, or "lookup", what followed in the
        text before. Texts are no other than without, only sooner there if the draft is good and
        cheap.
    n_draft
        Tokens it proposes at a time.
    json
        Write one value of JSON, closed where --max-new-tokens end.
    beams
        Look for the likeliest text with so many beams, instead of drawing one.
    length_penalty
        With --beams: 0 compares whole probabilities, 1 those of a token on average; more is for
        longer texts.
    compile
        Make one program of a token's step: slow to start, then faster. Needs a C++ compiler.
    """
    if seed is not None and not 0 <= seed < 2**64:  # what a generator of torch takes
        raise ValueError(f"--seed must lie in 0 … 2**64 - 1, got {seed}")
    modes = {"--draft": draft, "--json": json, "--beams": beams}
    _check_together(
        [*(name for name, given in modes.items() if given), *(["--compile"] if compile else [])],
        stop,
    )
    model, tokenizer, encode, ends = source(run, hf)
    helper = free_draft(str(draft), run, tokenizer) if str(draft) in (NGRAM, LOOKUP) else None
    small = load(draft) if draft is not None and helper is None else None
    if small and small.tokenizer.fingerprint() != tokenizer.fingerprint():
        raise ValueError(f"{draft} has another tokenizer than {run or hf}: a draft needs the same")
    proposing: Any = small.model if small else helper
    stops = StopTexts(tokenizer, stop, ends)
    guide = JSONGuide(tokenizer, ends) if json else None
    generator = torch.Generator()
    generator.seed() if seed is None else generator.manual_seed(seed)
    sampler = sampler or Sampler()
    reader = Compiled(model) if compile else model
    context = min(m.config.max_seq_len for m in [model, *([small.model] if small else [])])

    def go_on(text: str) -> None:
        ids = encode(text)
        # At least 1, so that a prompt without room is refused by those who say why.
        n = min(max_new_tokens, max(1, context - len(ids)))
        write, finish = streamer(stops)
        options: dict[str, Any] = {"max_new_tokens": n, "n_ids": tokenizer.vocab_size}
        options |= {"stop": stops}
        if beams is not None:
            shape: dict[str, Any] = {"n_beams": beams, "length_penalty": length_penalty}
            for id in beam_search(reader, ids, **shape, **options)[0].ids:
                write(id)
            finish()
            return
        options |= {"sampler": sampler, "generator": generator}
        if proposing is None:
            generate_ids(reader, [ids], guide=guide, on_token=lambda _, id: write(id), **options)
            finish()
            return
        made = speculative(model, proposing, ids, n_draft=n_draft, on_token=write, **options)
        finish()
        print(
            f"{len(made.ids)} tokens in {made.n_rounds} passes, {made.n_accepted} of "
            f"{made.n_accepted + made.n_rejected} proposals accepted",
            file=sys.stderr,
        )

    if prompt is not None:
        go_on(prompt)
        return
    for line in typed_lines():
        try:
            go_on(utf8(line, "standard input"))
        except ValueError as error:  # a mistake in one line does not end the conversation
            print(f"llmtutor: {error}", file=sys.stderr)


class Source(NamedTuple):
    """A model and what it takes to let it write."""

    model: Transformer
    tokenizer: Tokenizer
    encode: Callable[[str], list[int]]
    """From a prompt to ids, with a sign of the beginning where the model expects one."""
    ends: Collection[int]
    """Ids that end a text."""


def source(run: Path | None, hf: Path | None) -> Source:
    """The model of a run, or of a folder of Hugging Face.

    Raises:
        ValueError: neither or both; what ``load`` and ``load_hf_with_tokenizer`` refuse.
    """
    if (run is None) == (hf is None):
        raise ValueError("expected the folder of a run, or --hf FOLDER: one of the two")
    if run is not None:
        return load_packed(run) if (run / QUANTIZED).is_file() else load(run)
    assert hf is not None
    model, tokenizer, stop = load_hf_with_tokenizer(hf)
    return Source(model, tokenizer, tokenizer.prompt, stop)


def load_packed(folder: Path) -> Source:
    """The model in a folder of ``llmtutor quantize``, with the tokenizer beside it.

    Raises:
        ValueError: a damaged file.
        OSError: no tokenizer.
    """
    model = load_quantized(folder / QUANTIZED)
    if (folder / TOKENIZER).is_file():
        published = HFTokenizer.load(folder)
        stop = stop_ids(folder, model.config.vocab_size)
        return Source(model, published, published.prompt, stop)
    tokenizer = load_tokenizer(folder / "tokenizer")
    return Source(model, tokenizer, tokenizer.encode, text_ends(tokenizer))


def text_ends(tokenizer: Tokenizer) -> set[int]:
    """Ids of the sign between texts, where a tokenizer of ours has it."""
    return {id for text, id in tokenizer.special_tokens.items() if text == END_OF_TEXT}


def load(run: Path) -> Source:
    """The model of a training run, at its last checkpoint or a given one.

    Raises:
        ValueError: no run, a damaged checkpoint or one of another version of the program, a
            tokenizer that is not there or not the one that the model was trained with.
    """
    folder = run_folder(run)
    if not run.is_dir() or not (folder / CHECKPOINTS).is_dir():
        found = "no checkpoints in it" if run.is_dir() else "a file" if run.exists() else "nothing"
        raise ValueError(
            f"{run}: expected the folder of a training run, or of one of its checkpoints, found "
            f"{found}; `llmtutor train` makes one"
        )
    state = read_state(run)
    try:
        tokenizer = load_tokenizer(folder / "tokenizer")
        if tokenizer.fingerprint() != state.tokenizer:
            raise ValueError(f"{folder / 'tokenizer'} is another tokenizer")
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{error}. {run} needs the tokenizer that its model was trained with: put that one back"
        ) from None
    try:
        model = build(TrainConfig.from_dict(state.config).model_config(tokenizer.vocab_size))
        model.load_state_dict(state.model)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"{run}: its settings and its weights make no model, so it was written by another "
            f"version of llmtutor: {' '.join(str(error).split())}"
        ) from None
    return Source(model.eval(), tokenizer, tokenizer.encode, text_ends(tokenizer))


def free_draft(name: str, run: Path | None, tokenizer: Tokenizer) -> NGramDraft | LookupDraft:
    """The draft of a name: counts of the run's corpus, or the text itself.

    Raises:
        ValueError: counts for a model that is no run of ours; a corpus that is no longer there.
    """
    if name == LOOKUP:
        return LookupDraft(tokenizer.vocab_size)
    if run is None or (run / QUANTIZED).is_file():
        raise ValueError(
            "--draft ngram counts the corpus of a run of `llmtutor train`, and this model is none: "
            "take --draft lookup"
        )
    own = str(run_folder(run) / "tokenizer")
    config = replace(TrainConfig.from_dict(read_state(run).config), tokenizer=own)
    try:
        ids = np.asarray(load_text(config).train.ids[:MOST_COUNTED])
    except (ValueError, OSError) as error:
        raise ValueError(
            f"--draft ngram counts the run's corpus: {error}; --draft lookup needs none"
        ) from None
    return NGramDraft(NGram(ORDER, tokenizer.vocab_size).fit(ids))


def _check_together(modes: list[str], stop: tuple[str, ...]) -> None:
    """Raise ``ValueError`` if two of the ways to write were asked for."""
    if len(modes) > 1:
        raise ValueError(
            f"{' and '.join(modes)} are different ways to write: leave out {' or '.join(modes)}"
        )
    if "--json" in modes and stop:
        raise ValueError("--json ends where its value does: leave out --stop")


def typed_lines() -> Iterator[bytes]:
    """Lines typed, or from a pipe, up to an empty one."""
    lines = sys.stdin.buffer
    while True:
        if lines.isatty():
            print("\n> ", end="", file=sys.stderr, flush=True)
        line = lines.readline().rstrip(b"\r\n")
        if not line:
            return
        yield line


def streamer(stops: StopTexts) -> tuple[Callable[[int], None], Callable[[], None]]:
    """Functions that print a token as soon as it is sure to stay, and that end the text."""
    stream = TextStream(stops)

    def put(text: str) -> None:
        # Past the text layer: a console may know fewer characters than the model.
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8"))
        sys.stdout.buffer.flush()

    return lambda id: put(stream.add(id)), lambda: put(stream.end() + "\n")
