"""An HTTP proxy that gives trouble: requests through it are refused, cut short or slow."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from urllib.parse import urlsplit

BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class Unsteady(ThreadingHTTPServer):
    """Gives the trouble it is told to.

    ``trouble`` is asked at every request, by its number and as "PUT /bucket/name": "refused",
    "lost" (not passed on, and not answered), "cut", "slow" or "".
    """

    daemon_threads = True

    def __init__(self, behind: str, trouble: Callable[[int, str], str]) -> None:
        self.behind, self.trouble = urlsplit(behind).netloc, trouble
        self.numbers, self.given = count(1), list[str]()
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client that did not wait has hung up."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Unsteady

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        trouble = self.server.trouble(next(self.server.numbers), f"{self.command} {self.path}")
        self.server.given.append(trouble)
        if trouble == "refused":
            self._answer(503, {"Content-Type": "application/xml"}, BUSY)
            return
        if trouble == "lost":
            self.close_connection = True
            return
        if trouble == "slow":
            time.sleep(2)
        there = http.client.HTTPConnection(self.server.behind, timeout=60)
        there.request(self.command, self.path, body, dict(self.headers))
        answer = there.getresponse()
        data = answer.read()
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in _OURS}
        if self.command == "HEAD":
            headers["Content-Length"] = answer.getheader("Content-Length") or "0"
        there.close()
        self._answer(answer.status, headers, data, cut=trouble == "cut")

    def _answer(self, status: int, headers: dict[str, str], data: bytes, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = cut

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


_OURS = {"content-length", "connection", "transfer-encoding", "date", "server"}


@contextmanager
def unsteady(behind: str, trouble: Callable[[int, str], str]) -> Iterator[Unsteady]:
    """Stand between clients and the server at an address."""
    with Unsteady(behind, trouble) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
