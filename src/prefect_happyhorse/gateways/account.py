"""Who pays, and where."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import SecretStr

from prefect_happyhorse.domain.prices import Price

__all__ = ["Account"]


@dataclass(frozen=True)
class Account:
    """What a gateway needs to address and sign a request.

    Args:
        gateway: Id of the gateway.
        base_url: The gateway's address, without a slash at its end.
        label: The account's own name; two accounts of one gateway never share jobs.
        key: The API key or access token; None where an app id and secret key stand in for it, or nothing is to be sent.
        app_id: The id that is exchanged for an access token, together with the secret key.
        secret_key: The secret that belongs to the app id.
        submit_path: A path in place of the catalog's submit path.
        poll_path: A path in place of the catalog's poll path; `{task_id}` stands for the job.
        private_network: Whether the gateway lies in a private network, so that its results may be fetched from there.
        prices: What the account pays, where the user says so.
        credentials: The name of the block that the account was made from, where it has one.
    """

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
