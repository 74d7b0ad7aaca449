"""Chapter 22, evaluation: our models in lm-evaluation-harness.

Most published numbers come from there. It needs the optional extra, which brings half a gigabyte:
``pip install "llmtutor[eval]"``. The harness asks a model for three things: the log-likelihood of a
continuation, that of a whole text, and a text that goes on until a stop. ::

    import lm_eval
    from llmtutor.evaluate.harness import adapter

    lm_eval.simple_evaluate(model=adapter(subject, decode), tasks=["blimp"])
"""

import math
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any

from llmtutor.evaluate.scoring import Subject, fit, rolling, sums
from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler

MAX_NEW_TOKENS = 256
"""Where a task does not say how many."""


def adapter(
    subject: Subject, decode: Callable[[Iterable[int]], str], *, batch_size: int = 32
) -> Any:
    """The model as a ``TemplateLM`` of the harness.

    A context that is too long loses its beginning, as it does there.

    Raises:
        ValueError: the harness is not installed; the way to do so is said.
    """
    return _adapter_class()(subject, decode, batch_size)


def _adapter_class() -> Any:
    """The class, which can be made only where its base is."""
    try:
        template: Any = import_module("lm_eval.api.model").TemplateLM
    except ImportError as error:
        raise ValueError(
            'this needs lm-evaluation-harness: install it with `python -m pip install "llmtutor'
            f'[eval]"` (about 500 MB; {error})'
        ) from None

    class Adapter(template):
        """Ours, seen by the harness."""

        def __init__(
            self, subject: Subject, decode: Callable[[Iterable[int]], str], batch_size: int
        ) -> None:
            super().__init__()
            self.subject, self.decode, self.batch_size = subject, decode, batch_size

        @property
        def eot_token_id(self) -> int:
            """Stands before a text without a context."""
            return self.subject.start

        @property
        def max_length(self) -> int:
            """The most ids that the model reads."""
            longest = self.subject.longest
            return 2**31 if math.isinf(longest) else int(longest)

        @property
        def tokenizer_name(self) -> str:
            """For the harness's cache of requests."""
            return "llmtutor"

        def tok_encode(
            self, string: str, add_special_tokens: bool | None = None, **_: Any
        ) -> list[int]:
            """Ids, behind the start where the model expects that."""
            before = [self.subject.start] if self.subject.begins else []
            ids = list(self.subject.encode(string))
            return ids if add_special_tokens is False else before + ids

        def _loglikelihood_tokens(
            self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
        ) -> list[tuple[float, bool]]:
            rows = [
                fit((given, scored), self.max_length, "cut", where=f"request {i}")
                for i, (_, given, scored) in enumerate(requests)
            ]
            totals, greedy = sums(self.subject.model, rows, batch_size=self.batch_size)
            return list(zip(totals.tolist(), greedy.tolist(), strict=True))

        def loglikelihood_rolling(
            self, requests: Sequence[Any], disable_tqdm: bool = False
        ) -> list[float]:
            """Each text whole."""
            return [
                -rolling(self.subject, *request.args, batch_size=self.batch_size).total_nats
                for request in requests
            ]

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            """The likeliest token each time, up to a stop text."""
            return [self._go_on(*request.args) for request in requests]

        def _go_on(self, context: str, options: dict[str, Any]) -> str:
            wanted = int(options.get("max_gen_toks", MAX_NEW_TOKENS))
            n = min(wanted, self.max_length - 1)  # one id has to be given
            ids = self.tok_encode(context)[-(self.max_length - n) :] or [self.subject.start]
            (made,) = generate(
                self.subject.model,  # type: ignore[arg-type]
                [ids],
                max_new_tokens=n,
                sampler=Sampler(greedy=True),
                stop={self.subject.start},
            )
            text = self.decode([id for id in made if id != self.subject.start])
            until = options.get("until") or []
            stops = [until] if isinstance(until, str) else until
            for stop in filter(None, stops):
                text = text.split(stop, 1)[0]
            return text

    return Adapter
