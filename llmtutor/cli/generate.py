"""``llmtutor generate``: a trained model writes on, token by token as they are drawn."""

import codecs
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import cyclopts
import torch
from cyclopts import Parameter

from llmtutor.cli import Text
from llmtutor.data.readers import END_OF_TEXT
from llmtutor.fast.decoding import Compiled
from llmtutor.generate.generate import generate as generate_ids
from llmtutor.generate.sampling import Sampler
from llmtutor.generate.speculative import speculative
from llmtutor.interop.hf import load_hf_with_tokenizer
from llmtutor.interop.hf.tokenizer import TOKENIZER, HFTokenizer, stop_ids
from llmtutor.interop.quantize.files import QUANTIZED, load_quantized
from llmtutor.model.presets import build
from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer import Tokenizer, load_tokenizer
from llmtutor.tokenizer.files import utf8
from llmtutor.train.config import TrainConfig
from llmtutor.train.folder import CHECKPOINTS, read_state, run_folder

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
        A token, such as "." with a character tokenizer, after which the text ends; repeat the
        option for several.
    seed
        Makes the text repeatable: a whole number of 0 or more.
    draft
        Folder of the run of a smaller model with the same tokenizer, which proposes tokens ahead.
        Texts are no other than without, only sooner there if the draft is good and much smaller.
    n_draft
        Tokens it proposes at a time.
    compile
        Make one program of a token's step: slow to start, then faster. Needs a C++ compiler.
    """
    if seed is not None and not 0 <= seed < 2**64:  # what a generator of torch takes
        raise ValueError(f"--seed must lie in 0 … 2**64 - 1, got {seed}")
    model, tokenizer, encode, ends = source(run, hf)
    helper = load(draft) if draft is not None else None
    if helper and compile:
        raise ValueError("a draft proposes several tokens a step: leave out --draft or --compile")
    if helper and helper.tokenizer.fingerprint() != tokenizer.fingerprint():
        raise ValueError(f"{draft} has another tokenizer than {run or hf}: a draft needs the same")
    stops = {*ends, *(one_token(tokenizer, text) for text in stop)}
    generator = torch.Generator()
    generator.seed() if seed is None else generator.manual_seed(seed)
    sampler = sampler or Sampler()
    reader = Compiled(model) if compile else model
    context = min(m.config.max_seq_len for m in [model, *([helper.model] if helper else [])])

    def go_on(text: str) -> None:
        ids = encode(text)
        # At least 1, so that a prompt without room is refused by those who say why.
        n = min(max_new_tokens, max(1, context - len(ids)))
        write, finish = streamer(tokenizer)
        options: dict[str, Any] = {"sampler": sampler, "stop": stops, "generator": generator}
        options |= {"max_new_tokens": n, "n_ids": tokenizer.vocab_size}
        if helper is None:
            generate_ids(reader, [ids], on_token=lambda _, id: write(id), **options)
            finish()
            return
        made = speculative(model, helper.model, ids, n_draft=n_draft, on_token=write, **options)
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


def one_token(tokenizer: Tokenizer, text: str) -> int:
    """The id of a text that is one token; ``ValueError`` if it is none or several."""
    ids = tokenizer.encode(text)
    if len(ids) != 1:
        raise ValueError(f"--stop takes one token, but {text!r} is {len(ids)} of them")
    return ids[0]


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


def streamer(tokenizer: Tokenizer) -> tuple[Callable[[int], None], Callable[[], None]]:
    """Functions that print a token at once, and that end the text.

    A character may be spread over several tokens: its bytes are held back until it is whole.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def put(text: str) -> None:
        # Past the text layer: a console may know fewer characters than the model.
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8"))
        sys.stdout.buffer.flush()

    return (
        lambda id: put(decoder.decode(tokenizer.token_bytes(id))),
        lambda: put(decoder.decode(b"", final=True) + "\n"),
    )
