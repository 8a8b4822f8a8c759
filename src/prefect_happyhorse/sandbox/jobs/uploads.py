"""What was uploaded to a gateway's temporary storage, and the policies that allow it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["UPLOADED", "Grant", "Uploads"]

UPLOADED = "oss://"
"""How the address of an upload begins."""

Owner = tuple[str, str, str]
"""Gateway, account and model: what an upload can be used for."""


@dataclass(frozen=True)
class Grant:
    """The right to upload one file until a time."""

    owner: Owner
    folder: str
    ends_at: float

    @property
    def policy(self) -> str:
        """What is allowed, in base64."""
        return base64.b64encode(f'{{"conditions": [["starts-with", "$key", "{self.folder}"]]}}'.encode()).decode()

    @property
    def signature(self) -> str:
        """What stands for the policy's being true."""
        return base64.b64encode(hashlib.sha256(f"signed:{self.folder}".encode()).digest()).decode()

    @property
    def key_id(self) -> str:
        """The id of the key that it is signed with."""
        return f"LTAI{hashlib.sha256(self.folder.encode()).hexdigest()[:20]}"


class Uploads:
    """The policies that were given, and what was uploaded by them."""

    def __init__(self) -> None:
        self._grants: dict[str, Grant] = {}
        self._kept: dict[str, tuple[Owner, bytes, float]] = {}

    def grant(self, owner: Owner, name: str, ends_at: float) -> Grant:
        """A new policy."""
        grant = Grant(owner, f"dashscope-instant/{name}", ends_at)
        self._grants[grant.folder] = grant
        return grant

    def owner(self, fields: Mapping[str, object]) -> Owner | None:
        """Who was given the policy that a form is sent with."""
        grant = self._granted(fields)
        return None if grant is None else grant.owner

    def _granted(self, fields: Mapping[str, object]) -> Grant | None:
        return self._grants.get(str(fields.get("key", "")).rpartition("/")[0])

    def take(self, fields: Mapping[str, object], content: bytes, now: float, lives_s: float) -> tuple[int, str, str]:
        """Keep an upload: its status, and the code and message of why it is refused, else empty."""
        grant = self._granted(fields)
        if grant is None or (fields.get("policy"), fields.get("Signature")) != (grant.policy, grant.signature):
            return 403, "SignatureDoesNotMatch", "The request signature does not match."
        wanted = {"OSSAccessKeyId": grant.key_id, "x-oss-object-acl": "private", "x-oss-forbid-overwrite": "true"}
        if any(fields.get(name) != value for name, value in wanted.items()):
            return 403, "AccessDenied", "Invalid according to Policy."
        if grant.ends_at <= now:
            return 403, "AccessDenied", "Invalid according to Policy: Policy expired."
        key = str(fields["key"])
        if key in self._kept:
            return 409, "FileAlreadyExists", "The object exists."
        self._kept[key] = (grant.owner, content, now + lives_s)
        return int(str(fields.get("success_action_status", 204))), "", ""

    def find(self, address: str, owner: Owner, now: float) -> bytes | None:
        """What lies at an address, for whom it was uploaded, while it lives."""
        found = self._kept.get(address.removeprefix(UPLOADED))
        return found[1] if found is not None and found[0] == owner and now < found[2] else None

    def content(self, address: str) -> bytes:
        """What lies at an address; a ValueError when there is nothing."""
        found = self._kept.get(address.removeprefix(UPLOADED))
        if found is None:
            raise ValueError("is not there any more")
        return found[1]
