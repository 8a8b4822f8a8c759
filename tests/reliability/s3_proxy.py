"""A proxy before an object store that takes the condition out of conditional writes, delays, and loses answers."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["StoreFaults", "s3_proxy"]


@dataclass
class StoreFaults:
    """What goes wrong between a client and its store.

    Args:
        moments: Says when.
        delay_s: The longest delay of a request and of an answer, in seconds.
        loses: The share of answers that are lost after the request went through.
        loses_writes: The same for requests that write.
        in_a_row: How often the answer to the same request is lost at most, so that a client that asks again hears one.
        ignores_conditions: Whether the store never sees `If-None-Match`.
    """

    moments: random.Random
    delay_s: float = 0.0
    loses: float = 0.0
    loses_writes: float = 0.0
    in_a_row: int = 2
    ignores_conditions: bool = False
    lost: Counter[str] = field(default_factory=Counter[str])
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _row: Counter[str] = field(default_factory=Counter[str])

    def pause(self) -> None:
        """Take as long as a slow line does."""
        time.sleep(self.moments.uniform(0, self.delay_s))

    def loses_answer(self, method: str, path: str) -> bool:
        """Whether the answer to this request is lost."""
        with self._lock:
            request = f"{method} {path}"
            share = self.loses_writes if method == "PUT" else self.loses
            if self._row[request] < self.in_a_row and self.moments.random() < share:
                self._row[request] += 1
                self.lost[method] += 1
                return True
            del self._row[request]
            return False


@contextmanager
def s3_proxy(store: tuple[str, int], faults: StoreFaults) -> Iterator[str]:
    """The address of a proxy before the store at a host and port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            taken_out = {"connection", "expect"} | ({"if-none-match"} if faults.ignores_conditions else set())
            headers = {name: value for name, value in self.headers.items() if name.lower() not in taken_out}
            faults.pause()
            upstream = HTTPConnection(*store, timeout=60)
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            faults.pause()
            if faults.loses_answer(self.command, self.path):
                self.close_connection = True
                return
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in {"connection", "transfer-encoding", "content-length"}:
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815 -- the names that http.server calls

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that was killed or has given up is no error of the proxy's."""

    with Server(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()
