"""The engine of the page, run by node; browsers run it in test_widgets.py."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import browser as tool
import pytest
from playwright.sync_api import Browser, sync_playwright

from llmtutor.web.engine import engine_script

HARNESS = """
const engine = LLMTutor.engine();
const kernel = Buffer.from(LLMTutor.kernel, "base64");
const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
// A worker without a browser: `ask` promises an answer and collects the parts.
function worker() {
  const scope = {}, waiting = new Map();
  let asked = 0;
  scope.postMessage = ({ number, part, value, error }) => {
    const question = waiting.get(number);
    if (part !== undefined) return question.parts.push(...part);
    if (error !== undefined) return question.reject(new Error(error));
    question.resolve({ value, parts: question.parts });
  };
  engine.serve(scope);
  return (kind, options = {}) => new Promise((resolve, reject) => {
    waiting.set(++asked, { resolve, reject, parts: [] });
    scope.onmessage({ data: { number: asked, kind, options } });
  });
}
(async () => {
  const answer = await (async () => { CODE })().catch((error) => ({ error: error.message }));
  require("fs").writeSync(1, JSON.stringify(answer ?? null));
  process.exit(0);
})();
"""


@pytest.fixture(scope="session")
def js(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """``js(code, given)``: what the code returns; ``engine``, ``kernel``, ``given`` are there."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: it runs the JavaScript of the page without a browser")

    folder = tmp_path_factory.mktemp("js")

    def run(code: str, given: Any = None, models: str = "") -> Any:
        script = folder / "script.js"
        source = engine_script() + models + HARNESS.replace("CODE", code)
        script.write_text(source, encoding="utf-8")
        done = subprocess.run(
            [node, str(script)], input=json.dumps(given).encode(), capture_output=True, timeout=120
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    return run


def without(reason: str) -> None:
    """Skip with the reason; where a browser is required (CI) a skip is a failure."""
    if os.environ.get("LLMTUTOR_REQUIRE_BROWSER"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not tool.AXE.exists():
        without("axe is not installed: run `make assets` (it needs npm)")
    with sync_playwright() as playwright:
        program = tool.chromium(playwright)
        if program is None:
            without("no Chromium found: install it, or name one in the variable CHROMIUM")
        browser = playwright.chromium.launch(executable_path=program, args=tool.FLAGS)
        yield browser
        browser.close()
