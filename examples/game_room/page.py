"""The page, by HTTP of the standard library, on a thread of its own: two files, one of them of `examples/browser`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).parent
FILES = {
    "/": (HERE / "page.html", "text/html; charset=utf-8"),
    "/packetcore.js": (HERE.parent / "browser" / "packetcore.js", "text/javascript; charset=utf-8"),
}


class Page(BaseHTTPRequestHandler):
    """Serves them, and keeps no log."""

    def do_GET(self) -> None:
        path, kind = FILES.get(self.path.partition("?")[0], (None, ""))
        if path is None:
            self.send_error(404)
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def serving(host: str, port: int) -> Iterator[str]:
    """Serve the page; gives its address, without a path.

    Raises:
        OSError: the port is taken, or the address is not this machine's.
    """
    with ThreadingHTTPServer((host, port), Page) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
        thread.start()
        try:
            yield f"http://{host}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
