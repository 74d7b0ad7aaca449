"""What a page must do in a real browser: stay on the site, run without errors, be readable by all.

`Visit` opens one page and collects what goes wrong while it loads; `look` runs a check of
browser.js on the open page. Problems are sentences; an empty list means that there is none.
"""

import functools
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import Browser, Page, Playwright, Route

BOOK = Path(__file__).resolve().parents[1]
CHECKS = Path(__file__).with_suffix(".js").read_text(encoding="utf-8").partition("\n")[2].rstrip()
AXE = BOOK / "node_modules" / "axe-core" / "axe.min.js"
WIDE, NARROW = 1280, 390
HEIGHT = 900
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PROGRAMS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]


def chromium(playwright: Playwright) -> str | None:
    """Path of a Chromium: the variable CHROMIUM, one on the path, or Playwright's own download."""
    found = [os.environ.get("CHROMIUM"), *map(shutil.which, PROGRAMS)]
    found.append(playwright.chromium.executable_path)
    return next((path for path in found if path and Path(path).exists()), None)


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files below a prefix without a line of log for each, as a host of pages does it."""

    prefix = "/"

    def translate_path(self, path: str) -> str:
        """The file for an address; what is not below the prefix is nowhere."""
        if not path.startswith(self.prefix):
            return str(Path(self.directory, "nowhere", "at", "all"))
        return super().translate_path("/" + path.removeprefix(self.prefix))

    def send_error(self, code: int, *more: str | None) -> None:
        """For a wrong address the page that is made for it, if there is one."""
        wrong = Path(self.directory, "404.html")
        if code != HTTPStatus.NOT_FOUND or not wrong.is_file():
            super().send_error(code, *more)
            return
        content = wrong.read_bytes()
        self.send_response(code)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def serve(folder: Path, prefix: str = "/") -> Iterator[str]:
    """Serve a folder to this machine only; yields its address, with a slash at the end."""
    kind = type("Handler", (QuietHandler,), {"prefix": prefix})
    handler = functools.partial(kind, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}{prefix}"
        server.shutdown()


class Visit:
    """One page opened in a window of its own; `problems` grows while it is open."""

    def __init__(self, browser: Browser, site: str, path: str, scheme: str, width: int) -> None:
        """Open `site + path` in the scheme "light" or "dark" and wait for its mathematics."""
        self.site = site
        self.problems: list[str] = []
        viewport = {"width": width, "height": HEIGHT}
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme)  # type: ignore[arg-type]
        self.page: Page = self.context.new_page()
        self.page.route("**/*", self.guard)
        self.page.on("pageerror", lambda error: self.problems.append(f"script error: {error}"))
        self.page.on("console", self.listen)
        self.page.on("response", self.inspect)
        self.page.goto(site + path, wait_until="load")
        self.page.evaluate("() => window.MathJax?.startup?.promise?.then(() => null)")

    def guard(self, route: Route) -> None:
        """Let a request through only when it stays on the site."""
        if route.request.url.startswith(self.site):
            route.continue_()
        else:
            self.problems.append(f"request leaves the site: {route.request.url}")
            route.abort()

    def listen(self, message: object) -> None:
        """Errors on the console; a blocked or missing file is reported by its own rule."""
        kind, text = getattr(message, "type", ""), getattr(message, "text", "")
        if kind == "error" and "Failed to load resource" not in text:
            self.problems.append(f"console error: {text}")

    def inspect(self, response: object) -> None:
        """Files that the page wants and the site does not have."""
        if (status := getattr(response, "status", 0)) >= 400:
            self.problems.append(f"answer {status}: {getattr(response, 'url', '')}")

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


def look(page: Page, check: str) -> list[str]:
    """Run one check of browser.js: "math", "pictures", "drawings", "code", "explore", "axe", …."""
    if check == "axe":
        # A colour on its way from one theme to the other has any contrast: all are at their end.
        page.add_style_tag(content="*, ::before, ::after { transition: none !important }")
        page.add_script_tag(path=str(AXE))
    return list(page.evaluate(f"() => {CHECKS}.{check}()"))
