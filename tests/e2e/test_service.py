"""The tasks served by a process, and called from others, as docs/deployments.md shows it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_happyhorse import GatewayCredentials, MediaStore, TextToImage, generate

from .stack import ROOT, Stack, nothing_left_behind

pytestmark = pytest.mark.e2e

KEY = "sesame-of-the-block"
SAVE = f"""
from prefect_happyhorse import GatewayCredentials, MediaStore
import os
GatewayCredentials(gateway="happyhorse", api_key={KEY!r}, base_url=os.environ["HAPPYHORSE_BASE_URL"]).save("studio-key")
MediaStore(url=os.environ["HAPPYHORSE_STORE"]).save("studio")
"""
CALL = """
import json
from prefect_happyhorse import Budget, TextToImage, generate
horse = TextToImage(model="gemini-3.0-pro-image", prompt="A served horse")
budget = Budget(amount=100, currency="USD", makers_list=True)
given = {"credentials": "studio-key", "store": "studio", "budget": budget, "labels": {"project": "service"}}
futures = [generate.delay(horse, **given) for _ in range(2)]
print(json.dumps([future.result(timeout=300).model_dump(mode="json") for future in futures]))
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with nothing_left_behind() as processes:
        yield Stack(tmp_path_factory.mktemp("stack"), processes)


def holding(folder: Path, secret: str) -> list[str]:
    """Files that hold a text, as it is or inside of base64, which pickled results are written in."""
    shifted = [base64.b64encode(b"\0" * skip + secret.encode())[(4 if skip else 0) : -4] for skip in range(3)]
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [str(file) for file in files if any(word in file.read_bytes() for word in (secret.encode(), *shifted))]


def test_what_is_asked_of_a_service_is_made_once_and_no_key_is_written_down(stack: Stack, tmp_path: Path) -> None:
    """Two calls for the same from another process give one asset; no file holds a key, the server's database among them."""
    page = (ROOT / "docs" / "deployments.md").read_text(encoding="utf-8")
    (served,) = [code for code in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if "import serve" in code]
    service = tmp_path / "service.py"
    service.write_text(served)
    stack.python("-c", SAVE)
    with stack.background(str(service)):
        first, second = json.loads(stack.python("-c", CALL, seconds=400).splitlines()[-1])
        assert (first["uri"], first["sha256"]) == (second["uri"], second["sha256"])
        assert Path(first["uri"].removeprefix("file://")).stat().st_size == first["bytes"]
    (charge,) = stack.ledger()
    (entry,) = stack.journal()
    assert (charge["task_id"], entry["state"], entry["labels"]) == (first["job"]["task_id"], "kept", {"project": "service"})
    written = [file for file in (stack.folder / "prefect" / "storage").rglob("*") if file.is_file()]
    assert any(b"A served horse" in file.read_bytes() for file in written)
    for secret in (KEY, stack.environment["HAPPYHORSE_API_KEY"]):
        assert holding(stack.folder, secret) == []
    (tmp_path / "seen").write_bytes(b"x" + base64.b64encode(f"a{KEY}b".encode()))
    assert len(holding(tmp_path, KEY)) == 1


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"credentials": GatewayCredentials(gateway="ttapi", api_key=KEY)}, "credentials"),
        ({"credentials": ["happyhorse", GatewayCredentials(gateway="ttapi", api_key=KEY)]}, "credentials"),
        ({"credentials": "ttapi", "store": MediaStore(url="s3://studio/outputs", options={"secret": KEY})}, "store"),
    ],
)
def test_a_block_is_refused_where_it_would_lose_its_key(given: dict[str, object], names: str) -> None:
    """Before anything is written or sent, with the way out."""
    horse = TextToImage(model="gpt-image-2", prompt="A white horse")
    with pytest.raises(ValueError, match=rf"^{names} must be given to \.delay by name.*Nothing was sent\.$") as told:
        generate.delay(horse, **given)  # pyright: ignore[reportArgumentType]
    assert KEY not in str(told.value)
