"""``llmtutor generate``: a trained model writes on, token by token as they are drawn."""

import codecs
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import cyclopts
import torch
from cyclopts import Parameter

from llmtutor.data.readers import END_OF_TEXT
from llmtutor.fast.decoding import Compiled
from llmtutor.generate.generate import generate as generate_ids
from llmtutor.generate.sampling import Sampler
from llmtutor.generate.speculative import speculative
from llmtutor.model.presets import build
from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer import Tokenizer, load_tokenizer
from llmtutor.train.config import TrainConfig
from llmtutor.train.loop import read_state, run_folder

app = cyclopts.App(
    name="generate",
    help_epilogue='Example: llmtutor generate runs/first --prompt "HAMLET." --temperature 0.8',
)


@app.default
def generate(
    run: Path,
    /,
    *,
    prompt: str | None = None,
    max_new_tokens: int = 200,
    sampler: Annotated[Sampler | None, Parameter(name="*")] = None,
    stop: Annotated[tuple[str, ...], Parameter(negative=())] = (),
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
        Folder of a training run, or of one of its checkpoints.
    prompt
        The text to go on from.
    max_new_tokens
        Tokens to write at most.
    stop
        A token, such as "." with a character tokenizer, after which the text ends; repeat the
        option for several.
    seed
        Makes the text repeatable.
    draft
        Folder of the run of a smaller model with the same tokenizer, which proposes tokens ahead.
        Texts are no other than without, only sooner there if the draft is good and much smaller.
    n_draft
        Tokens it proposes at a time.
    compile
        Make one program of a token's step: slow to start, then faster. Needs a C++ compiler.
    """
    model, tokenizer = load(run)
    helper = load(draft) if draft is not None else None
    if helper and compile:
        raise ValueError("a draft proposes several tokens a step: leave out --draft or --compile")
    if helper and helper[1].fingerprint() != tokenizer.fingerprint():
        raise ValueError(f"{draft} has another tokenizer than {run}: a draft needs the same")
    stops = {one_token(tokenizer, text) for text in stop}
    stops |= {id for text, id in tokenizer.special_tokens.items() if text == END_OF_TEXT}
    generator = torch.Generator()
    generator.seed() if seed is None else generator.manual_seed(seed)
    sampler = sampler or Sampler()
    reader = Compiled(model) if compile else model
    context = min(m.config.max_seq_len for m in [model, *([helper[0]] if helper else [])])

    def go_on(text: str) -> None:
        ids = tokenizer.encode(text)
        # At least 1, so that a prompt without room is refused by those who say why.
        n = min(max_new_tokens, max(1, context - len(ids)))
        write, finish = streamer(tokenizer)
        if helper is None:
            generate_ids(
                reader,
                [ids],
                max_new_tokens=n,
                sampler=sampler,
                stop=stops,
                generator=generator,
                on_token=lambda _, id: write(id),
            )
            finish()
            return
        made = speculative(
            model,
            helper[0],
            ids,
            max_new_tokens=n,
            sampler=sampler,
            n_draft=n_draft,
            stop=stops,
            generator=generator,
            on_token=write,
        )
        finish()
        print(
            f"{len(made.ids)} tokens in {made.n_rounds} passes, {made.n_accepted} of "
            f"{made.n_accepted + made.n_refused} proposals accepted",
            file=sys.stderr,
        )

    if prompt is not None:
        go_on(prompt)
        return
    for line in typed_lines():
        try:
            go_on(line)
        except ValueError as error:  # a mistake in one line does not end the conversation
            print(f"llmtutor: {error}", file=sys.stderr)


def load(run: Path) -> tuple[Transformer, Tokenizer]:
    """The model and the tokenizer of a training run, at its last checkpoint or a given one.

    Raises:
        ValueError: no run, a damaged checkpoint, a tokenizer that the model was not trained with.
    """
    state = read_state(run)
    tokenizer = load_tokenizer(run_folder(run) / "tokenizer")
    if tokenizer.fingerprint() != state.tokenizer:
        raise ValueError(
            f"{run_folder(run) / 'tokenizer'} is not the tokenizer that the model was trained "
            "with: put that one back"
        )
    model = build(TrainConfig.from_dict(state.config).model_config(tokenizer.vocab_size))
    model.load_state_dict(state.model)
    return model.eval(), tokenizer


def one_token(tokenizer: Tokenizer, text: str) -> int:
    """The id of a text that is one token.

    Raises:
        ValueError: it is none or several.
    """
    ids = tokenizer.encode(text)
    if len(ids) != 1:
        raise ValueError(f"--stop takes one token, but {text!r} is {len(ids)} of them")
    return ids[0]


def typed_lines() -> Iterator[str]:
    """Lines typed, or from a pipe, up to an empty one."""
    lines = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8")
    while True:
        if lines.isatty():
            print("\n> ", end="", file=sys.stderr, flush=True)
        line = lines.readline().rstrip("\r\n")
        if not line:
            lines.detach()
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
