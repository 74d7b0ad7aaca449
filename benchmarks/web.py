"""The engine of the page beside two runtimes that come as WebAssembly, in one page of Chromium.

    python benchmarks/web.py            # a result, also written to data/results
    python benchmarks/web.py --quick    # a first look, not a result

One unit of work is 100 new tokens after a short prompt, greedily, one text, one thread, with the
same weights: stories260K in float32, and the last rung of the staircase, whose weights are kept in
int8. "ours" is what a reader's click runs: a worker that sends each token to the page, with its
ten rivals; "no SIMD" is the same where the kernel does not compile. onnxruntime-web gets the files
of `llmtutor export --to onnx`, with a cache that goes in and out of each step and without one; it
has no int8 with a scale for each row, so its weights are float32. wllama (llama.cpp) gets GGUF in
float32 and in q8_0. All are loaded first and take turns, after a warm-up round. They must write the
ids that `generate` writes; of q8_0, which rounds otherwise, it is told how many are the same.

Then the loader: the bytes that a page with one widget asks for before a click and after it, and
the seconds from the click to the first token on the page, opened as a file and from a server.
The peers come by npm into `benchmarks/web/node_modules`. The last line is one JSON object.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from _measure import Times, from_command_line, machine, ratio, record, without_first
from _site import GGUF, MODULES, Job, installed_versions, lay_box, lay_model, lay_programs, weigh
from playwright.sync_api import Browser, Page, Request, sync_playwright

from llmtutor.experiments.kept import load_kept
from llmtutor.interop.llama2c import load_stories260k

sys.path.append(str(Path(__file__).resolve().parents[1] / "book" / "tools"))
from browser import FLAGS, chromium, serve

NEW = 100
ROUNDS, OPENED = 30, 20
"""Rounds of writing, and times that a page with a widget is opened."""
FEW = 3
ONNX = "onnxruntime-web"
PROGRAMS: dict[str, tuple[str, str, dict[str, bool]]] = {
    ONNX: ("onnxCached", "{}.cached.onnx", {}),
    f"{ONNX}, no cache": ("onnxWhole", "{}.whole.onnx", {}),
    **{f"wllama {dtype}": ("wllama", f"{{}}.{dtype}.gguf", {}) for dtype in GGUF},
    "ours": ("ours", "{}", {}),
    "ours, no SIMD": ("ours", "{}", {"simd": False}),
}
"""By name: the function of programs.js, its file, its options."""
ROUNDED = "wllama q8_0"
FIRST_TOKEN = """async (prompt) => {
  location.hash = `#lt-write?prompt=${encodeURIComponent(prompt)}`;
  const box = document.querySelector(".lt-widget");
  const shown = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(box.innerText)), 60_000);
    const look = () => box.querySelector(".lt-token") && resolve(performance.now());
    new MutationObserver(look).observe(box, { childList: true, subtree: true });
  });
  const start = performance.now();
  box.querySelector(".lt-start").click();
  return ((await shown) - start) / 1000;
}"""
"""A link with a prompt writes as soon as its widget is open: one click, as a reader would do it."""


def jobs() -> tuple[Job, Job]:
    stories, kept = load_stories260k(), load_kept()
    return (
        Job("stories260K", *stories, prompt="Once upon a time", dtype="f32"),
        Job("staircase", *kept, prompt="ROMEO:\n", dtype="int8"),
    )


def missing(program: str | None) -> str | None:
    """What this benchmark needs and is not here."""
    if program is None:
        return "no Chromium found: install it, or name one in the variable CHROMIUM"
    if shutil.which("npm") is None and not MODULES.exists():
        return "npm is not installed, and the peers come by npm"
    return None


def load_programs(page: Page, name: str, work: Mapping[str, Any]) -> None:
    page.wait_for_function("globalThis.programs")
    for who, (kind, file, options) in PROGRAMS.items():
        asked = [who, kind, file.format(name), work, options]
        page.evaluate("asked => programs.open(...asked)", asked)


def compare(page: Page, work: Mapping[str, Any]) -> dict[str, int]:
    """How many tokens are torch's, from the first on; all of them, but for the rounded weights."""
    same = {}
    for who, (kind, *_) in PROGRAMS.items():
        more = {"logprobs": 1} if kind == "wllama" else {}  # with them come ids
        _, ids = page.evaluate("asked => programs.run(...asked)", [who, more])
        pairs = enumerate(zip(ids, work["want"], strict=True))
        same[who] = next((i for i, (got, want) in pairs if got != want), NEW)
        if same[who] < NEW and who != ROUNDED:
            raise AssertionError(f"expected torch's ids from {who}, but token {same[who]} differs")
    return same


def race(page: Page, work: Mapping[str, Any], rounds: int) -> Times:
    """Seconds of each program, in turn; the better way of ONNX Runtime comes first."""
    times: Times = {}
    for _ in range(rounds + 1):
        for who in PROGRAMS:
            seconds, written = page.evaluate("asked => programs.run(...asked)", [who])
            want = work["written"] if isinstance(written, str) else work["want"]
            if written != want and who != ROUNDED:
                raise AssertionError(f"expected {want} from {who}, got {written}")
            times.setdefault(who, []).append(seconds)
    times = without_first(times)
    best = min((who for who in times if who.startswith(ONNX)), key=lambda who: median(times[who]))
    return {best: times[best], **times}


def show(name: str, times: Times, same: Mapping[str, int]) -> dict[str, object]:
    """Print the table of one model; speeds and ratios by name."""
    figures: dict[str, object] = {}
    print(f"\n{name:28}{'median':>9}{'min':>9}{'max':>9}{'tokens/s':>10}{'speed':>7}{'same':>6}")
    for who, values in times.items():
        middle = median(values)
        print(
            f"  {who:26}{middle:8.3f}s{min(values):8.3f}s{max(values):8.3f}s{NEW / middle:10,.0f}"
            f"{1 / ratio(times, who):7.2f}{same[who]:6}"
        )
        figures[f"{name}_{who}_tokens_per_second"] = round(NEW / middle)
        if who != "ours":
            figures[f"{name}_time_to_{who}"] = ratio(times, "ours", who)
    figures[f"{name}_better_onnx"] = next(iter(times))
    figures[f"{name}_same_tokens_as_torch"] = dict(same)
    return figures


def click(browser: Browser, address: str, prompt: str) -> tuple[float, list[str], list[str]]:
    """Seconds from the click to the first token; names of files asked for before it and after."""
    asked: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith("blob:"):
            asked.append(request.url.split("/")[-1])

    with browser.new_context() as context:  # with a cache of its own
        page = context.new_page()
        page.on("request", note)
        page.goto(address, wait_until="load")
        before = len(asked)
        return page.evaluate(FIRST_TOKEN, prompt), asked[1:before], asked[before:]


def show_clicks(clicks: Mapping[str, Sequence[float]]) -> dict[str, object]:
    figures: dict[str, object] = {}
    print(f"\n{'from a click to a token':28}{'median':>9}{'min':>9}{'max':>9}")
    for place, values in clicks.items():
        figures[f"first_token_{place}_seconds"] = round(median(values), 3)
        print(f"  {place:26}{median(values):8.3f}s{min(values):8.3f}s{max(values):8.3f}s")
    return figures


def measure(browser: Browser, site: Path, quick: bool) -> None:
    about = machine("torch")
    if quick:
        print("QUICK: few rounds. A first look, not a result.")
    figures: dict[str, object] = {"benchmark": "web", "quick": quick}
    seconds: dict[str, Times] = {}
    pins = installed_versions()
    about["versions"] = {**about["versions"], "Chromium": browser.version, **pins}  # type: ignore[dict-item]
    lay_programs(site)
    todo = jobs()
    works, last = {job.name: lay_model(site, job, NEW) for job in todo}, todo[-1]
    lay_box(site, last)
    with serve(site) as address:
        for name, work in works.items():
            with browser.new_context() as context:
                page = context.new_page()
                page.goto(f"{address}page.html")
                load_programs(page, name, work)
                same = compare(page, work)
                seconds[name] = race(page, work, FEW if quick else ROUNDS)
            figures |= show(name, seconds[name], same)
        clicks: dict[str, list[float]] = {"file": [], "server": []}
        for _ in range(FEW if quick else OPENED):
            for place, start in (("file", f"{site.as_uri()}/"), ("server", address)):
                once, before, after = click(browser, f"{start}box.html", last.prompt)
                clicks[place].append(once)
    figures |= show_clicks(clicks)
    figures["bytes"] = counted = weigh(site, before, after, last)
    print()
    for what, nbytes in counted.items():
        print(f"  {what:30}{nbytes:14,}{nbytes / counted['weights in int8']:8.3f}")
    if not quick:
        rounded = {place: [round(value, 4) for value in values] for place, values in clicks.items()}
        record("web", {**figures, **about}, seconds, first_token=rounded)
    print(json.dumps(figures))


def main(quick: bool) -> None:
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        program = chromium(playwright)
        if reason := missing(program):
            print(f"web: nothing is measured: {reason}")
            return
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        measure(browser, Path(folder), quick)
        browser.close()


if __name__ == "__main__":
    from_command_line(main, __doc__)
