"""Chapter 23, export: the widgets for JupyterLab, from the kernel to this machine alone."""

import json
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from llmtutor.web.boxes import INVITATIONS, box
from llmtutor.web.page_files import standalone
from llmtutor.web.site import site_files

KINDS = {"html": "text/html", "js": "text/javascript", "css": "text/css"}


class Widgets(BaseHTTPRequestHandler):
    """Answers with the files of the widgets, and with a page for each."""

    def do_GET(self) -> None:
        """A file, or for NAME.html?OPTIONS the page of a widget."""
        parts = urlsplit(self.path)
        stem, _, kind = parts.path.lstrip("/").rpartition(".")
        if kind == "html" and stem in INVITATIONS:
            options = json.loads(unquote(parts.query) or "{}")
            content = standalone(INVITATIONS[stem], box(stem, options, ""))
        elif f"{stem}.{kind}" in site_files():
            content = site_files()[f"{stem}.{kind}"]
        else:
            return self.send_error(404)
        data = content.encode("utf-8")
        self.send_response(200)
        self.send_header("Content-Type", f"{KINDS[kind]}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        return None

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: a notebook would show it."""


@cache
def address() -> str:
    """Where the widgets of this process are; the server starts with the first call.

    It is heard on this machine only, and ends with the kernel.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Widgets)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"
