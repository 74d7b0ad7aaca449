"""A release holds together: versions, change log, citation, and the files that others run."""

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import release
import yaml

import llmtutor

ROOT = release.ROOT
GOOD = f"## [Unreleased]\n\n## [{llmtutor.__version__}] - 2030-01-31\n\n### Added\n\n- Words.\n"
CITED = f"version: {llmtutor.__version__}\ndate-released: 2030-01-31\n"
TAG = f"v{llmtutor.__version__}"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def workflow(name: str) -> dict:
    return yaml.safe_load(read(f".github/workflows/{name}.yml"))


def steps(job: dict) -> str:
    return "\n".join(str(step.get("run") or step.get("uses")) for step in job["steps"])


@pytest.mark.parametrize(
    ("tag", "changes", "cited", "said"),
    [
        (TAG, GOOD, CITED, None),
        ("0.1", GOOD, CITED, "expected a tag like v0.1.0, received '0.1'"),
        ("v99.0.0", GOOD, CITED, f"__init__.py says {llmtutor.__version__}, the tag 99.0.0"),
        (TAG, GOOD, "version: 0.0.1\n", "CITATION.cff says 0.0.1"),
        (TAG, "## [Unreleased]\n", CITED, "CHANGELOG.md has no section"),
        (TAG, GOOD.replace(" - 2030-01-31", ""), CITED, "CHANGELOG.md has no section"),
        (TAG, GOOD.partition("###")[0], CITED, "CHANGELOG.md has no section"),
        (TAG, GOOD.replace("01-31", "02-01"), CITED, "is released on 2030-01-31, CHANGELOG.md"),
        (TAG, GOOD.replace("]\n", "]\n\n- More.\n", 1), CITED, "changes under [Unreleased]"),
    ],
)
def test_what_does_not_agree_with_a_tag_is_named(
    tmp_path: Path, tag: str, changes: str, cited: str, said: str | None
) -> None:
    (tmp_path / "CHANGELOG.md").write_text(changes, encoding="utf-8")
    (tmp_path / "CITATION.cff").write_text(cited, encoding="utf-8")
    found = release.problems(tag, tmp_path)
    assert (found == []) if said is None else any(said in problem for problem in found)


def test_notes_are_what_the_change_log_says(tmp_path: Path) -> None:
    (tmp_path / "CHANGELOG.md").write_text(GOOD, encoding="utf-8")
    assert release.notes(TAG, tmp_path) == "### Added\n\n- Words."
    with pytest.raises(ValueError, match=r"expected a section \[9.9.9\], found Unreleased, "):
        release.notes("v9.9.9", tmp_path)


def test_change_log_is_in_order() -> None:
    known = release.sections(read("CHANGELOG.md"))
    assert next(iter(known)) == release.UNRELEASED
    assert len(known) == len(re.findall("^## ", read("CHANGELOG.md"), re.MULTILINE))
    days = [day for name, (day, _) in known.items() if name != release.UNRELEASED]
    assert None not in days and days == sorted(days, reverse=True)
    if llmtutor.__version__ not in known:  # then it is the one that is being made
        assert f"becomes version {llmtutor.__version__}" in known[release.UNRELEASED][1]


def test_citation_is_complete() -> None:
    """The keys that the Citation File Format 1.2.0 asks for, and those that a reader looks for."""
    cited = yaml.safe_load(read("CITATION.cff"))
    allowed = {
        "cff-version",
        "message",
        "title",
        "type",
        "abstract",
        "authors",
        "version",
        "license",
    }
    allowed |= {"keywords", "date-released", "repository-code", "url", "doi"}
    assert {*allowed} >= set(cited) >= allowed - {"date-released", "repository-code", "url", "doi"}
    assert cited["cff-version"] == "1.2.0" and cited["type"] == "software"
    assert all(set(author) == {"name"} for author in cited["authors"])
    assert cited["license"] == ["MIT", "CC-BY-4.0"]
    book = yaml.safe_load(read("_config.yml"))
    assert cited.get("repository-code", "") == book["repository"]["url"]
    assert cited.get("url", "") == book["html"]["baseurl"]


def test_the_first_cell_of_colab_installs_what_chapters_import() -> None:
    """Besides the package and what it brings along; nothing there is pinned, nothing replaced."""
    (cell,) = re.findall(r"^%pip install (.*)$", read("README.md"), re.MULTILINE)
    assert "git+ADDRESS " in cell and "-e" not in cell and "constraints" not in cell
    imported = set()
    for path in (ROOT / "book" / "chapters").glob("[0-9]*.ipynb"):
        for of in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if of["cell_type"] == "code":
                code = "".join(of["source"])
                imported |= set(re.findall(r"^\s*(?:import|from) (\w+)", code, re.MULTILINE))
    project = tomllib.loads(read("pyproject.toml"))["project"]["dependencies"]
    brought = {re.match(r"[\w-]+", one)[0] for one in project} | {"llmtutor"}
    missing = imported - set(sys.stdlib_module_names) - brought - {"IPython"}
    missing |= {"matplotlib", "ipywidgets"}  # which the package draws with
    assert "transformers" in missing and all(re.search(rf"\b{name}\b", cell) for name in missing), (
        missing
    )


def test_everybody_builds_with_the_same_python_and_node() -> None:
    *conda, _ = yaml.safe_load(read("environment.yml"))["dependencies"]
    versions = dict(entry.split("=") for entry in conda if "=" in entry)
    container = json.loads(read(".devcontainer/devcontainer.json"))
    assert f"-{versions['python']}-" in container["image"]
    (node,) = container["features"].values()
    assert node["version"] == versions["nodejs"]
    for name in ("pages", "release"):
        given = [
            step.get("with", {})
            for job in workflow(name)["jobs"].values()
            for step in job.get("steps", [])
        ]
        assert {w["python-version"] for w in given if "python-version" in w} == {versions["python"]}
        assert {str(w["node-version"]) for w in given if "node-version" in w} == {
            versions["nodejs"]
        }


def test_the_container_is_set_up_by_make() -> None:
    """So that pins and extras are those of `make`, which another test holds to the others."""
    container = json.loads(read(".devcontainer/devcontainer.json"))
    first = container["postCreateCommand"].split(" && ")[0]
    assert re.search(r"^data: \$\(STAMP\)", read("Makefile"), re.MULTILINE) and first == "make data"
    interpreter = container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert interpreter.endswith("/.venv/bin/python")


def test_a_release_is_tested_and_checked_before_it_is_built() -> None:
    made = workflow("release")
    assert made[True] == {"push": {"tags": ["v*"]}}  # YAML reads the key `on` as true
    jobs = made["jobs"]
    assert jobs["test"]["uses"] == "./.github/workflows/test.yml"
    assert "workflow_call" in workflow("test")[True]
    assert jobs["build"]["needs"] == "test"
    ran = steps(jobs["build"])
    order = ["release.py check", "build.py book", "build.py pdf", "-m build", "release.py notes"]
    places = [ran.index(step) for step in order]
    assert places == sorted(places)
    assert '-c constraints.txt -e ".[book,lab,dev]"' in ran


def test_nothing_is_published_without_need() -> None:
    made = workflow("release")
    assert made["permissions"] == {"contents": "read"}
    assert made["jobs"]["github"]["permissions"] == {"contents": "write"}
    upload = made["jobs"]["pypi"]
    assert upload["if"] == "vars.PYPI == 'yes'" and upload["permissions"] == {"id-token": "write"}
    assert "password" not in read(".github/workflows/release.yml")
    ran = steps(workflow("pages")["jobs"]["publish"])
    assert ran.index("make book") < ran.index("make pdf") < ran.index("upload-pages-artifact")
