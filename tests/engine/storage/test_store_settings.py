"""What a store is made of: its URL, options and addresses, and where its partial downloads lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prefect_happyhorse.engine.storage import store as store_module
from prefect_happyhorse.engine.storage.store import Store


async def test_public_base_url(tmp_path: Path) -> None:
    """Under a public base URL, what is special in a URL is quoted."""
    store = Store(str(tmp_path), public_base_url="https://media.example.com/out/")
    assert await store.public_url("a b/50% #1?.png") == "https://media.example.com/out/a%20b/50%25%20%231%3F.png"
    with pytest.raises(ValueError, match="leaves"):
        await store.public_url("../x")


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder counts from where the process was when the store was made."""
    monkeypatch.chdir(tmp_path)
    stores = [Store(url) for url in ("outputs", "./x/../outputs", "file://outputs", "local://outputs", f"file://{tmp_path}/outputs")]
    monkeypatch.chdir("/")
    assert {store.url for store in stores} == {f"file://{tmp_path.as_posix()}/outputs"}
    assert {store.folder for store in stores} == {tmp_path / "outputs"}


def test_uri(tmp_path: Path) -> None:
    """A file's URL is one that fsspec opens, and the store knows its own."""
    import fsspec

    store = Store(str(tmp_path / "a b"))
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "50% #1.png").write_bytes(b"horse")
    uri = store.uri("50% #1.png")
    with fsspec.open(uri, "rb") as file:
        assert file.read() == b"horse"
    assert store.path_of(uri) == "50% #1.png"
    assert [store.path_of(other) for other in (f"file://{tmp_path}/b", f"{store.url}/../x", store.url, "s3://a/b")] == [None] * 4


def test_secrets_do_not_show() -> None:
    """The options, keys among them, are never shown."""
    assert "sesame" not in repr(Store("s3://bucket", options={"secret": "sesame"}))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"url": ""}, "is empty"),
        ({"url": "https://example.com/x"}, "url must be a local folder or an fsspec URL"),
        ({"url": "data:,x"}, "url must be a local folder or an fsspec URL"),
        ({"url": "ftp://example.com/x"}, "scheme 'ftp'"),
        ({"url": "s3:bucket"}, "url must be a local folder or an fsspec URL"),
        ({"url": "s3://key:sesame@bucket/x"}, "must hold no key or password"),
        ({"url": "s3://"}, "must name a bucket, container or host behind s3://"),
        ({"url": "s3:///outputs"}, "must name a bucket, container or host behind s3://"),
        ({"url": "s3://bucket/x::file://y"}, "chained"),
        ({"url": "s3://b", "presign_s": 0}, "presign_s must be at least 1 second \\(got 0\\)"),
        ({"url": "outputs", "presign_s": 60}, "a local folder has no presigned addresses"),
        ({"url": "outputs", "public_base_url": "ftp://example.com"}, "an http or https address"),
        ({"url": "outputs", "public_base_url": "https://user:sesame@example.com"}, "must hold no user name or password"),
        ({"url": "outputs", "public_base_url": "https://example.com/?a=b"}, "no query or fragment"),
        ({"url": "outputs", "template": "{date}"}, r"{task_id} is missing.*{suffix} or {index} is missing.*must end with .{ext}"),
        ({"url": "outputs", "template": "{job}/{task_id}{suffix}.{ext}"}, "the field {job} is unknown; known are date, gateway"),
        ({"url": "outputs", "template": "{task_id.x}{suffix}.{ext}"}, "the field {task_id.x} is unknown"),
        ({"url": "outputs", "template": "{task_id!r}{suffix}.{ext}"}, "takes no format or conversion"),
        ({"url": "outputs", "template": "{task_id:>9}{suffix}.{ext}"}, "takes no format or conversion"),
        ({"url": "outputs", "template": "{task_id}{suffix.{ext}"}, "cannot be read"),
        ({"url": "outputs", "template": "../{task_id}{suffix}.{ext}"}, "leaves the store's folder"),
        ({"url": "outputs", "template": "/x/{task_id}{suffix}.{ext}"}, "leaves the store's folder"),
        ({"url": "outputs", "template": "x//{task_id}{suffix}.{ext}"}, "a part of it is empty"),
        ({"url": "outputs", "template": "x\\{task_id}{suffix}.{ext}"}, "backslash"),
    ],
)
def test_refused(facts: dict[str, Any], message: str) -> None:
    """A store that could not work is refused when it is made, and no secret is repeated."""
    with pytest.raises(ValueError, match=message) as caught:
        Store(**facts)
    assert "sesame" not in str(caught.value)


def test_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Partial downloads lie beside the outputs of a local store; for others in a folder of the user's own, one for each store."""
    monkeypatch.setenv("HAPPYHORSE_HOME", str(tmp_path))
    local = Store(str(tmp_path / "outputs")).scratch_dir()
    far = [Store(url).scratch_dir() for url in ("s3://a", "s3://b", "s3://a")]
    chosen = Store("s3://a", scratch=str(tmp_path / "mine")).scratch_dir()
    assert local == tmp_path / "outputs" / ".partial"
    assert (far[0] == far[2], far[0] == far[1], far[0].parent) == (True, False, tmp_path / "cache" / "partial")
    assert chosen.parent == tmp_path / "mine"
    assert all(folder.is_dir() for folder in (local, *far, chosen))


def test_scratch_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user's cache cannot be written to, a temporary folder does."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("HAPPYHORSE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(store_module.tempfile, "mkdtemp", lambda prefix: str(tmp_path / prefix))  # pyright: ignore[reportUnknownLambdaType]
    assert Store("s3://a").scratch_dir() == tmp_path / "prefect-happyhorse-"
