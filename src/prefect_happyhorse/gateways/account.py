"""Who pays, and where."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from pydantic import SecretStr

from prefect_happyhorse.domain.prices import Price

__all__ = ["AccessToken", "Account"]


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
    prices: tuple[Price, ...] = ()
    credentials: str | None = None


@dataclass(frozen=True)
class AccessToken:
    """A token that stands in for a key for a while."""

    value: SecretStr
    expires_at: datetime
