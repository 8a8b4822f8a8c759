"""Who pays, and where."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import SecretStr

from prefect_happyhorse.catalog import estimate, gateway_facts
from prefect_happyhorse.domain.prices import Estimate, Price
from prefect_happyhorse.domain.requests import GenerationRequest

__all__ = ["AccessToken", "Account", "UploadForm"]

_APP_ID_CHARS = 4


@dataclass(frozen=True)
class Account:
    """What a gateway needs to address and sign a request, as a `GatewayCredentials` block says it; `credentials` is the block's name."""

    gateway: str
    base_url: str
    label: str = "default"
    key: SecretStr | None = field(default=None, repr=False)
    app_id: str | None = None
    secret_key: SecretStr | None = field(default=None, repr=False)
    submit_path: str | None = None
    poll_path: str | None = None
    private_network: bool = False
    temporary_upload: bool = False
    prices: tuple[Price, ...] = ()
    credentials: str | None = None
    region: str | None = None

    def estimate(self, request: GenerationRequest) -> Estimate:
        """What a request should cost this account."""
        region = self.region or gateway_facts(self.gateway).region_of(self.base_url)
        return estimate(request, self.gateway, self.prices, region=region)

    def fingerprint(self, salt: str) -> str:
        """What tells this account's key from another's: a salted hash, too short for the key to be guessed by it."""
        said = "\n".join(
            key.get_secret_value() if isinstance(key, SecretStr) else key or "" for key in (self.key, self.app_id, self.secret_key)
        )
        return hashlib.blake2b(said.encode(), key=salt.encode(), digest_size=8).hexdigest()

    def secrets(self) -> tuple[str, ...]:
        """What must stand in nothing that is kept or shown; an app id of few letters could be told from no other text."""
        keys = [key.get_secret_value() for key in (self.key, self.secret_key) if key is not None]
        app_ids = [] if self.app_id is None or len(self.app_id) < _APP_ID_CHARS else [self.app_id]
        return tuple(filter(None, keys + app_ids))


@dataclass(frozen=True)
class UploadForm:
    """A form by which one file may be uploaded, without a key; `address` is what a submit then names, and the file comes last."""

    url: str
    address: str
    fields: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class AccessToken:
    """A token that stands in for a key for a while."""

    value: SecretStr
    expires_at: datetime
