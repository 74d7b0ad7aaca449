"""Chapter 24, forensics: what to ask of a published number, as a table to take along."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One question."""

    ask: str
    how: str
    catches: str
    minutes: int
    """About what it takes."""


WITH_THE_PAGE = (
    Item(
        "Is the page finished?",
        "search for TBD and for conflict markers (unfinished)",
        "numbers that nobody has measured yet",
        1,
    ),
    Item(
        "Which version is it?",
        "write down commit and date before you read",
        "a page that was changed after you read it",
        1,
    ),
    Item(
        "Do tokens, seconds and bytes fit each other?",
        "multiply what the page says (Reading, tokens_by_bytes)",
        "a slip of units, a factor of a thousand",
        5,
    ),
    Item(
        "Are both numbers of one kind?",
        "same text, split, tokenizer and unit on both sides; trained on or held out",
        "nats a token beside nats a byte, training losses beside held-out ones",
        3,
    ),
    Item(
        "Is only one thing different?",
        "list batch, steps, text, rate and size of both sides",
        "a comparison of budgets under the name of a comparison of models",
        5,
    ),
    Item(
        "Was each side tuned equally?",
        "count the rates tried on each side; does the best lie at an end?",
        "a new idea at its best rate beside an old one at its default",
        3,
    ),
    Item(
        "How far apart are two runs of the same thing?",
        "three trainings at least, paired (compare, largest_spread)",
        "luck under the name of progress",
        10,
    ),
    Item(
        "Which checkpoint is it?",
        "the last, the best on held-out text, or one chosen afterwards",
        "the lowest of many readings",
        1,
    ),
    Item(
        "On how many windows was it measured?",
        "ask for their number, and whether they overlap",
        "a test so small that its noise is the result",
        1,
    ),
    Item(
        "Was the sample chosen?",
        "ask for all of them, or the rule by which they were drawn",
        "the best of many",
        1,
    ),
)
"""What takes no code, in the order in which it pays to ask."""

WITH_THE_CODE = (
    Item(
        "Does the code build what the text says?",
        "count the parameters of each part, read the forward pass",
        "a norm over the window, a gate that is none, a mask after the mixing",
        10,
    ),
    Item(
        "Does an output depend on a later input?",
        "change one token, look at the outputs before it (find_leak)",
        "masks, statistics over the sequence, routers, projections that see the future",
        1,
    ),
    Item(
        "Is the last position the worst, or much worse than the middle?",
        "mean loss at each place of a window (loss_by_position)",
        "a model that reads what lies ahead; at the last place its loss is clean",
        2,
    ),
    Item(
        "Is the loss in use the loss in training?",
        "feed each prefix alone, count its last prediction (loss_in_use)",
        "that something looks ahead, not how many nats came through",
        5,
    ),
    Item(
        "Is the first loss ln V?",
        "measure before the first step (starts_at_log_vocab)",
        "weights too large, a wrong vocabulary, a loss in other units",
        1,
    ),
    Item(
        "Can it learn one batch by heart?",
        "a few hundred steps on four rows (learns_one_batch)",
        "parts that get no gradient, a softmax too many",
        2,
    ),
    Item(
        "Does it leave noise alone?",
        "train on random tokens, compare with their entropy (respects_noise)",
        "answers that reach the model, by whatever way",
        5,
    ),
    Item(
        "Are the targets the next inputs?",
        "look at one batch (targets_are_next)",
        "targets not shifted, or shifted twice",
        1,
    ),
    Item(
        "Is what is held out unseen?",
        "look for held-out pieces in the training windows (held_out_is_unseen)",
        "a random split of overlapping windows, copies of documents",
        5,
    ),
)
"""What takes the code, in the order in which it pays to ask."""

GROUPS = {"the page alone": WITH_THE_PAGE, "the code": WITH_THE_CODE}
"""By what is needed."""
CHECKLIST = (*WITH_THE_PAGE, *WITH_THE_CODE)
"""All questions."""


def as_text() -> str:
    """The checklist as plain text, a box before each question."""
    return "\n".join(["Reading a published number: a checklist", "", *_lines()])


def _lines() -> Iterator[str]:
    for needed, items in GROUPS.items():
        yield from (f"With {needed}", "")
        for item in items:
            about = f"about {item.minutes} minute{'s' * (item.minutes > 1)}"
            yield from (
                f"[ ] {item.ask}",
                f"    how: {item.how}; {about}",
                f"    catches: {item.catches}",
                "",
            )
