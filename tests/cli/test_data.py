"""`llmtutor data`, as it is typed: what is printed, what is left on disk, how it fails."""

import pytest

from llmtutor.cli import main
from llmtutor.data import CORPORA, tales
from llmtutor.data.tokens import open_tokens
from llmtutor.tokenizer import BPETokenizer, CharTokenizer

END = "<|endoftext|>"


@pytest.fixture
def corpus(tmp_path):
    """A file with 20 tales, the last two of them for validation."""
    path = tmp_path / "mine.txt"
    path.write_bytes(END.join(tales.generate(20, 1)).encode("utf-8"))
    return path


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMTUTOR_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("LLMTUTOR_MIRROR", raising=False)
    return tmp_path / "data"


def run(capsys, *words: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command line."""
    code = main(["data", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_list_shows_every_corpus_and_where_it_is(capsys, data_folder):
    code, out, err = run(capsys, "list")
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines() if not line.startswith(" ")}
    assert set(lines) == {"NAME", *CORPORA}
    assert lines["tales"].endswith("(generated)")
    assert lines["openwebtext"].endswith("not fetched")
    assert "4.70GB" in lines["openwebtext"]
    data_folder.mkdir()
    (data_folder / "tinyshakespeare.txt").write_bytes(b"")
    _, out, _ = run(capsys, "list")
    assert str(data_folder / "tinyshakespeare.txt") in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["list", "fetch", "prepare", "inspect", "LLMTUTOR_MIRROR"]),
        (["fetch"], ["NAME", "goes on where it stopped"]),
        (["prepare"], ["--tokenizer", "--out", "--separator", "Example:"]),
        (["inspect"], ["--plot", "--documents", "leak|training text"]),
    ],
)
def test_help_says_what_each_command_does(capsys, words, expected):
    code, out, _ = run(capsys, *words, "--help")
    assert code == 0
    for text in expected:
        assert any(part in " ".join(out.split()) for part in text.split("|")), text


def test_fetch_of_what_is_here_changes_nothing(capsys, corpus):
    code, out, _ = run(capsys, "fetch", corpus)
    assert code == 0
    assert f"is here: {corpus}" in out and f"{corpus.stat().st_size:,} bytes" in out
    code, out, _ = run(capsys, "fetch", "tales")
    assert (code, "nothing to fetch" in out) == (0, True)


def test_a_fetch_that_fails_is_one_line_and_exit_code_1(capsys, data_folder):
    code, out, err = run(capsys, "fetch", "tinystories-sample")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "tinystories_train.txt" in err and "sha256" in err and str(data_folder) in err


def test_an_unknown_corpus_suggests_the_nearest(capsys):
    code, _, err = run(capsys, "inspect", "tiny-stories")
    assert code == 1
    assert "did you mean 'tinystories'?" in err


def test_prepare_writes_both_splits(capsys, corpus, tmp_path):
    stories = tales.generate(20, 1)
    tokenizer = BPETokenizer.train("".join(stories), 300, [END])
    tokenizer.save(tmp_path / "tokenizer")
    out_folder = tmp_path / "new" / "tokens"
    code, out, _ = run(
        capsys, "prepare", corpus, "--tokenizer", tmp_path / "tokenizer", "--out", out_folder
    )
    assert code == 0
    train, valid = (
        open_tokens(out_folder / f"{split}.tokens", tokenizer) for split in ("train", "valid")
    )
    assert f"{len(train):,} tokens, 18 documents, 2 bytes each" in out
    assert valid.header.separator == END
    assert valid.ids.tolist() == [
        id for story in stories[18:] for id in [*tokenizer.encode(story), 299]
    ]


def test_prepare_without_special_tokens_puts_nothing_between(capsys, corpus, tmp_path):
    stories = tales.generate(20, 1)
    tokenizer = CharTokenizer.from_text("".join(stories))
    tokenizer.save(tmp_path / "chars")
    run(capsys, "prepare", corpus, "--tokenizer", tmp_path / "chars", "--out", tmp_path / "out")
    ids = open_tokens(tmp_path / "out" / "valid.tokens", tokenizer).ids
    assert tokenizer.decode(ids.tolist()) == "".join(stories[18:])


def test_prepare_with_a_tokenizer_that_cannot_leaves_nothing(capsys, corpus, tmp_path):
    CharTokenizer("abc").save(tmp_path / "chars")
    out_folder = tmp_path / "out"
    code, _, err = run(
        capsys, "prepare", corpus, "--tokenizer", tmp_path / "chars", "--out", out_folder
    )
    assert code == 1
    assert err.count("\n") == 1
    assert list(out_folder.iterdir()) == []


def test_inspect_prints_the_table(capsys, corpus):
    code, out, _ = run(capsys, "inspect", corpus)
    assert code == 0
    assert out.splitlines()[1].split() == ["documents", "18", "2"]
    assert "documents, exactly" in out
    _, out, _ = run(capsys, "inspect", corpus, "--documents", "2")
    assert out.splitlines()[1].split() == ["documents", "2", "2"]


def test_inspect_draws_rank_against_frequency(capsys, corpus, tmp_path):
    code, out, _ = run(capsys, "inspect", corpus, "--plot", tmp_path / "ranks.svg")
    assert code == 0
    assert str(tmp_path / "ranks.svg") in out
    assert (tmp_path / "ranks.svg").read_text(encoding="utf-8").count("<path") > 5


def test_requests_that_cannot_be_met_are_refused_before_any_work(capsys, corpus, tmp_path):
    for words, said in [
        (["inspect", corpus, "--documents", "0"], "documents must be at least 1, got 0"),
        (["inspect", corpus, "--plot", "x.bmp"], "unknown kind of picture '.bmp'"),
        (["inspect", tmp_path], f"{tmp_path} is a folder"),
        (["fetch", "x" * 300], "unknown corpus or text file"),
    ]:
        code, out, err = run(capsys, *words)
        assert (code, out) == (1, "") and said in err and err.count("\n") == 1


def test_prepare_takes_a_very_long_word(capsys, tmp_path):
    path = tmp_path / "long.txt"
    path.write_bytes(b"to be" + b"\n" * 400_000 + b"or not" + b"a" * 400_000)
    BPETokenizer.train("to be or not to be", 260).save(tmp_path / "bpe")
    code, _, err = run(
        capsys, "prepare", path, "--tokenizer", tmp_path / "bpe", "--out", tmp_path / "out"
    )
    assert (code, err) == (0, "")
