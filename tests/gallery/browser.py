"""Chromium without a screen, spoken to by its own protocol: what a page shows, and what it writes into its log.

See https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

__all__ = ["CHROMIUM", "Tab", "chromium"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_LONG_S = 120.0


class Tab:
    """One page.

    Args:
        connection: The browser.
        session: By which it is spoken to.
    """

    def __init__(self, connection: ClientConnection, session: str) -> None:
        self._connection = connection
        self._session = session
        self._number = 0
        self.log: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser for something."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, "sessionId": self._session}
        self._connection.send(json.dumps(message))
        while True:
            answer = json.loads(self._connection.recv(timeout=_LONG_S))
            if answer.get("sessionId") == self._session:
                self._hear(answer.get("method"), answer.get("params", {}))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _hear(self, method: str | None, told: dict[str, Any]) -> None:
        if method == "Runtime.consoleAPICalled":
            self.log.append(" ".join(str(one.get("value", one.get("description"))) for one in told["args"]))
        elif method == "Runtime.exceptionThrown":
            self.log.append(str(told["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.log.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")

    def open(self, address: str) -> None:
        """Load a page, until its scripts have run."""
        self.call("Page.navigate", url=address)
        self.until(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(address.partition('#')[0])})")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, condition: str) -> Any:
        """Wait until something is so in the page, and give what it is."""
        deadline = time.monotonic() + _LONG_S
        while not (value := self.evaluate(condition)):
            assert time.monotonic() < deadline, f"never: {condition}; log: {self.log}; page: {self.text()[:2000]}"
            self.evaluate("new Promise((done) => setTimeout(done, 20))")
        return value

    def text(self) -> str:
        """What can be read on the page."""
        return str(self.evaluate("document.body.innerText"))

    def screenshot(self, file: Path) -> None:
        """A picture of the page."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def chromium(folder: Path, *, width: int = 1400, height: int = 1000) -> Iterator[Tab]:
    """A browser with an empty page, whose profile lies in a folder."""
    assert CHROMIUM is not None
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--mute-audio", "--no-first-run", "--remote-debugging-port=0"]
    command = [CHROMIUM, *options, f"--user-data-dir={folder}", f"--window-size={width},{height}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as browser:
        assert browser.stderr is not None
        try:
            address = next(line.split()[-1] for line in browser.stderr if line.startswith("DevTools listening on"))
            with connect(address, max_size=None) as connection:
                connection.send(json.dumps({"id": 0, "method": "Target.createTarget", "params": {"url": "about:blank"}}))
                target = _answer(connection, 0)["targetId"]
                attach = {"targetId": target, "flatten": True}
                connection.send(json.dumps({"id": 0, "method": "Target.attachToTarget", "params": attach}))
                tab = Tab(connection, _answer(connection, 0)["sessionId"])
                for domain in ("Page", "Runtime", "Log"):
                    tab.call(f"{domain}.enable")
                yield tab
        finally:
            browser.terminate()
            browser.stderr.close()


def _answer(connection: ClientConnection, number: int) -> dict[str, Any]:
    while (answer := json.loads(connection.recv(timeout=_LONG_S))).get("id") != number:
        pass
    return answer["result"]
