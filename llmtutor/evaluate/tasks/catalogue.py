"""Chapter 22, evaluation: the benchmarks by name, where their files are, what is measured.

Names are lm-evaluation-harness's. A file is looked for in the data folder, in a mirror, and then
fetched from where it is published; its checksum is pinned where we have seen the file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llmtutor.checks import check_name
from llmtutor.data.fetch import RemoteFile, fetch_file
from llmtutor.data.places import find_local
from llmtutor.evaluate.items import Item, first_of_each
from llmtutor.evaluate.metrics import ALL_ANSWERS
from llmtutor.evaluate.tasks.blimp import PARADIGMS, read_blimp
from llmtutor.evaluate.tasks.choice import read_arc, read_choices, read_piqa
from llmtutor.evaluate.tasks.hellaswag import read_hellaswag
from llmtutor.evaluate.tasks.last_word import read_last_words
from llmtutor.evaluate.tasks.partial import read_partial
from llmtutor.evaluate.tasks.rolling import read_articles, read_documents

_RAW = "https://raw.githubusercontent.com"
_FOUNDRY = f"{_RAW}/mosaicml/llm-foundry/8c8dd48f72168c5d51e2f7b151595892a8fba43d/scripts/eval"
_OLMO = f"{_RAW}/allenai/OLMo/59a53e3f68e546330ca5a99ec626e58f9ab96494/olmo_data/oe_eval_tasks"
_TORCH = f"{_RAW}/pytorch/examples/77f55b912142e11fcfdf5b530231fb9c52f181e8/word_language_model"
GROUP = "blimp"


@dataclass(frozen=True)
class Task:
    """A benchmark of questions."""

    name: str
    what: str
    """In one line."""
    files: tuple[RemoteFile, ...]
    """The file, in the forms that it can have; the last one is published."""
    read: Callable[[Path], list[Item]]
    metrics: tuple[str, ...] = ALL_ANSWERS
    """Names in ``metrics.METRICS``."""
    guessed: bool = True
    """Whether somebody who guesses is sometimes right."""

    def items(self, path: Path | None = None, limit: int | None = None) -> list[Item]:
        """The questions, of an own file if given, at most ``limit`` of each group.

        Raises:
            ValueError, OSError: as its reader and ``data.fetch.fetch_file``.
        """
        items = self.read(find_file(self.files) if path is None else path)
        return items if limit is None else first_of_each(items, limit)


@dataclass(frozen=True)
class Rolling:
    """Texts that are measured whole."""

    name: str
    what: str
    files: tuple[RemoteFile, ...]
    read: Callable[[Path], list[str]]

    def texts(self, path: Path | None = None, limit: int | None = None) -> list[str]:
        """The texts, at most ``limit``, of an own file if given.

        Raises:
            ValueError, OSError: as its reader and ``data.fetch.fetch_file``; no file at all.
        """
        if path is None and not self.files:
            raise ValueError(f"{self.name} has no text of its own: name one, as {self.name}=FILE")
        return self.read(find_file(self.files) if path is None else path)[:limit]


def find_file(files: Sequence[RemoteFile]) -> Path:
    """The first of the files that is at hand, else the last, which is fetched."""
    at_hand = next((file for file in files if find_local(file.name)), files[-1])
    return fetch_file(at_hand)


def find_task(name: str) -> Task | Rolling:
    """The benchmark of that name; ``blimp_`` and a paradigm is one too.

    Raises:
        ValueError: there is none; the nearest name is given.
    """
    if name in TASKS:
        return TASKS[name]
    one = name.removeprefix(f"{GROUP}_")
    if name.startswith(f"{GROUP}_"):
        check_name("paradigm of BLiMP", one, PARADIGMS)
        what = f"minimal pairs of one kind: {one.replace('_', ' ')}"
        return Task(name, what, _BLIMP, partial(read_blimp, paradigms=[one]), metrics=("acc",))
    return TASKS[check_name("task", name, TASKS)]


def _foundry(name: str, place: str, size: int, sha256: str) -> tuple[RemoteFile]:
    return (RemoteFile(f"eval/{name}", f"{_FOUNDRY}/local_data/{place}", size, sha256),)


def _arc(name: str, size: int, sha256: str) -> tuple[RemoteFile, RemoteFile]:
    return (
        RemoteFile(f"eval/{name}_test.jsonl", None, size, sha256),
        RemoteFile(
            f"eval/{name}_requests.jsonl.gz", f"{_OLMO}/{name}/test_rc_5shot/requests.jsonl.gz"
        ),
    )


_BLIMP = (
    RemoteFile(
        "blimp/BLiMP.zip",
        f"{_RAW}/alexwarstadt/blimp/3e56b06fcabca9b30822fc66435fca6b1aa40bb1/BLiMP.zip",
        2_354_164,
        "172a1a714d72e72a89e8384dd531483f3d0f8a9aee3d33dccaf7992d8cecbb73",
    ),
)
_ALL: tuple[Task | Rolling, ...] = (
    Task(
        "blimp",
        "67,000 minimal pairs: which sentence is grammatical?",
        _BLIMP,
        read_blimp,
        metrics=("acc",),
    ),
    Task(
        "hellaswag",
        "10,042 descriptions: which of four endings belongs to it?",
        (
            RemoteFile(
                "eval/hellaswag_val_full.txt.bz2",
                f"{_RAW}/klosax/hellaswag_text_data/1105d370f8340eac3c63a91fd1fa58e8999f9505/"
                "hellaswag_val_full.txt.bz2",
                1_964_544,
                "50b637899e4263c2bc456c2dc726c95d2c8cd8e2a552ea5bd7719ce3cb03fe5b",
            ),
        ),
        read_hellaswag,
    ),
    Task(
        "arc_easy",
        "2,376 questions of school science, mostly with four answers",
        _arc(
            "arc_easy", 719_340, "d63b818ae3405454adf442a68fc6b072b006b676e8d190d1115b7d75a058f5b8"
        ),
        read_arc,
    ),
    Task(
        "arc_challenge",
        "1,172 more of them, which counting words did not answer",
        _arc(
            "arc_challenge",
            406_018,
            "eba391c83128823647185961dbb832e388b81f42df6769e192dee36be6ed9d4a",
        ),
        read_arc,
    ),
    Task(
        "piqa",
        "1,838 aims: which of two ways reaches it?",
        _foundry(
            "piqa_valid.jsonl",
            "commonsense_reasoning/piqa.jsonl",
            533_992,
            "d2870e73aec5154df3faf259b7700876e11608eebdf69e9d6667435673dbe4e0",
        ),
        read_piqa,
    ),
    Task(
        "openbookqa",
        "500 questions that need a fact of science and a thought",
        _foundry(
            "openbookqa_test.jsonl",
            "commonsense_reasoning/openbook_qa.jsonl",
            88_043,
            "adb2e5c7f8db810ddad4d6b2bf53dcc86dcc545499f7aafcaf42a8e179476c09",
        ),
        read_choices,
    ),
    Task(
        "copa",
        "100 sentences: which cause or effect is likelier?",
        _foundry(
            "copa_valid.jsonl",
            "commonsense_reasoning/copa.jsonl",
            14_627,
            "595dca44dec54c849490bd403a3e24a29e3b944065783222ebb0eb1a55298846",
        ),
        read_choices,
    ),
    Task(
        "winogrande",
        "1,267 sentences: which of two names is meant? (partial evaluation)",
        _foundry(
            "winogrande_xl_valid.jsonl",
            "language_understanding/winogrande.jsonl",
            312_369,
            "ea1592526f3bfdd0948ed3acb1b4dfa3f83d23698917118688ee1df7f8d4b8d7",
        ),
        read_partial,
        metrics=("acc",),
    ),
    Task(
        "wsc273",
        "273 Winograd schemas, the same by hand",
        _foundry(
            "winograd_wsc273.jsonl",
            "language_understanding/winograd_wsc.jsonl",
            60_523,
            "746336c27cd2e39a554cb1b8b4869d0f1ae2577ac5bfe799842d26bca5a5bf5e",
        ),
        read_partial,
        metrics=("acc",),
    ),
    Task(
        "lambada_openai",
        "5,153 passages: the last word, exactly",
        _foundry(
            "lambada_openai_test.jsonl",
            "language_understanding/lambada_openai.jsonl",
            1_895_241,
            "411bfbe5b9054346b6a19299c0242670adbefb9162efd958593cbc0290b8c9dc",
        ),
        read_last_words,
        metrics=("exact_match",),
        guessed=False,
    ),
    Rolling(
        "wikitext2",
        "the articles of WikiText-2's test set, with its <unk>, whole",
        (
            RemoteFile(
                "wikitext2_test.txt",
                f"{_TORCH}/data/wikitext-2/test.txt",
                1_256_449,
                "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
            ),
        ),
        read_articles,
    ),
    Rolling("text", "a text file of your own, whole: text=FILE", (), read_documents),
)
TASKS: dict[str, Task | Rolling] = {task.name: task for task in _ALL}
