"""What commands say of a PREFECT_API_URL at which another server than Prefect's answers."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from tests.cli.commands import run
from tests.cli.doctor import found, only

from prefect_happyhorse.sandbox import SandboxServer

ANSWERS = {
    "not found": (
        404,
        "text/html",
        b"<h1>Nothing here</h1>",
        "/health was answered with 404 Not Found",
        "such as http://127.0.0.1:4200/api",
    ),
    "a page": (
        200,
        "text/html",
        b"<html>",
        "/admin/version was answered with what is no version of Prefect",
        "such as http://127.0.0.1:4200/api",
    ),
    "an object": (
        200,
        "application/json",
        b"{}",
        "/admin/version was answered with what is no version",
        "such as http://127.0.0.1:4200/api",
    ),
    "a text": (
        200,
        "application/json",
        b'"fine"',
        "/admin/version was answered with what is no version",
        "such as http://127.0.0.1:4200/api",
    ),
    "no key": (401, "application/json", b"{}", "/health was answered with 401 Unauthorized", "PREFECT_API_AUTH_STRING"),
}


@contextmanager
def serving(status: int, kind: str, body: bytes) -> Generator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}/api"
        with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}):
            try:
                yield url
            finally:
                server.shutdown()


@pytest.mark.parametrize("answer", ANSWERS)
def test_another_server_is_told(answer: str, one_gateway: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line: what was asked, what answered, and what to do; nothing is made."""
    monkeypatch.setenv("MY_KEY", "sesame-1234")
    status, kind, body, what, advice = ANSWERS[answer]
    init = ("init", "--gateway", "ttapi", "--key-from-env", "MY_KEY", "--store", "/srv/films", "--save", "blocks")
    with serving(status, kind, body) as url:
        finding = only(found(code=1), "prefect server")
        assert finding.level == "problem"
        assert finding.what.startswith(f"GET {url}{what}")
        assert advice in finding.advice
        for command in (init, ("setup", "limits", "--gateway", "ttapi"), ("setup", "automations"), ("jobs", "--block", "films", "list")):
            done = run(*command)
            assert done.exit_code == (2 if command is init else 1), done.output
            (line,) = [line for line in done.stderr.splitlines() if "GET" in line]
            assert f"GET {url}{what}" in line
            assert advice in line
            assert "Nothing was changed" in done.stderr or len(done.stderr.splitlines()) == 1
