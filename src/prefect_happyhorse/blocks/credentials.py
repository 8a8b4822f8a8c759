"""The block that says who pays."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, HttpUrl, SecretStr, ValidationError, field_validator, model_validator

from prefect_happyhorse.blocks.logos import LOGOS
from prefect_happyhorse.catalog import GATEWAYS, gateway_facts, read_prices
from prefect_happyhorse.domain.errors import AuthenticationFailed, Money, PollRejected, error_context
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.domain.prices import Price
from prefect_happyhorse.domain.validation import validation_problems
from prefect_happyhorse.engine.http.ssrf import check_base_url, host_of, is_loopback
from prefect_happyhorse.gateways import Account

__all__ = ["GatewayCredentials", "environment_names", "no_payer"]


def _offer_gateways(schema: dict[str, Any]) -> None:
    """Let a form offer the gateways that there are: Prefect's UI draws a choice for an enum."""
    schema["enum"] = list(GATEWAYS)


def environment_names(gateway: str) -> dict[str, str]:
    """The environment variables that give a gateway's credentials, by field."""
    facts = gateway_facts(gateway)
    fields = ["api_key", "base_url", "account", "submit_path", "poll_path", "private_network", "prices"]
    if facts.token is not None:
        fields += ["app_id", "secret_key"]
    if facts.regions:
        fields += ["region", "workspace"]
    if facts.upload_policy is not None:
        fields += ["temporary_upload"]
    return {field: f"{gateway}_{field}".upper() for field in fields}


def _is_pasted_well(key: SecretStr) -> bool:
    text = key.get_secret_value()
    return text.isascii() and text.isprintable() and text == text.strip()


def no_payer(error: AuthenticationFailed | ValueError | OSError, job: Job | None) -> PollRejected:
    """What a lack of credentials means for a job that is there already: nobody can ask for it now, and it goes on."""
    why = str(error)
    if isinstance(error, ValidationError):
        why = "; ".join(validation_problems(error))
    elif isinstance(error, AuthenticationFailed):
        why = error.message
    return PollRejected(
        why.replace(" Nothing was sent.", ""),
        money=Money.MAY_BE_SPENT if job is None else Money.SPENT,
        advice="The job is not touched: give the credentials of the account that paid, in a block or the environment, and ask again.",
    )


class GatewayCredentials(Block):
    """Who pays, and at which gateway.

    Args:
        gateway: The gateway.
        api_key: The API key, or an access token.
        base_url: The gateway's address, which must be https outside of this machine and private networks; needed where the provider's
            document names none.
        region: One of the gateway's regions, where it has any; model, key and address have to be of one.
        workspace: Id of the workspace that the key belongs to, for a region's address of its own.
        account: A label of your own for the account that pays; two accounts of one gateway never share jobs.
        app_id: The app id, which together with `secret_key` stands in for a key where the gateway exchanges them for access tokens.
        secret_key: The secret key that belongs to the app id.
        submit_path: A path in place of the catalog's submit path.
        poll_path: A path in place of the catalog's poll path; `{task_id}` stands for the job.
        temporary_upload: Whether local inputs that the store has no public address for are uploaded to the gateway's own temporary
            storage. They live there for a short time, and its provider says that it is not for production.
        private_network: Whether the gateway lies in a private network, so that it may be called by http and its results fetched from there.
        prices: What the account pays, for estimates and budgets.

    Example:
        Load stored credentials:
        ```python
        from prefect_happyhorse import GatewayCredentials

        credentials = GatewayCredentials.load("BLOCK_NAME")
        ```
    """

    # What is wrong with a block must not print what it holds.
    model_config = ConfigDict(hide_input_in_errors=True)

    _block_type_name: ClassVar[str | None] = "HappyHorse Gateway Credentials"
    _block_type_slug: ClassVar[str | None] = "happyhorse-gateway-credentials"
    _logo_url: ClassVar[HttpUrl | None] = HttpUrl(f"{LOGOS}/secret.png")
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl("https://docs.prefect.io/v3/concepts/blocks")

    gateway: str = Field(description="The gateway that makes the images and videos.", json_schema_extra=_offer_gateways)
    api_key: SecretStr | None = Field(default=None, title="API key", description="The API key, or an access token.")
    base_url: str | None = Field(
        default=None, title="Base URL", description="The gateway's address; needed where its documentation names none."
    )
    region: str | None = Field(default=None, description="One of the gateway's regions, where it has any.")
    workspace: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9-]+$", description="Id of the workspace that the key belongs to, where the address holds it."
    )
    account: str | None = Field(
        default=None,
        min_length=1,
        description=(
            'A label of your own for the account that pays; when empty the region, else "default", or "sandbox" for a gateway on this'
            " machine."
        ),
    )
    app_id: str | None = Field(
        default=None, title="App id", description="The app id, in place of a key where the gateway exchanges it for access tokens."
    )
    secret_key: SecretStr | None = Field(default=None, description="The secret key that belongs to the app id.")
    submit_path: str | None = Field(default=None, description="A path in place of the catalog's submit path.")
    poll_path: str | None = Field(default=None, description="A path in place of the catalog's poll path; {task_id} stands for the job.")

    temporary_upload: bool = Field(
        default=False,
        description=(
            "Whether local inputs that the store has no public address for are uploaded to the gateway's own temporary storage: for trials,"
            " not for production."
        ),
    )
    private_network: bool = Field(
        default=False,
        description="Whether the gateway lies in a private network, so that it may be called by http and its results fetched from there.",
    )
    prices: list[Price] = Field(default_factory=list[Price], description="What the account pays, for estimates and budgets.")

    @field_validator("gateway")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in GATEWAYS:
            raise ValueError(f"gateway must be one of {', '.join(GATEWAYS)} (got {value!r})")
        return value

    @field_validator("base_url")
    @classmethod
    def _has_no_slash_at_its_end(cls, value: str | None) -> str | None:
        return None if value is None else value.rstrip("/")

    @field_validator("api_key", "secret_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _is_pasted_well(value):
            # Raised out here, since a traceback may show what is below.
            raise ValueError("must be printable ASCII without a space around it or a line break in it: paste it anew")
        return value

    @field_validator("submit_path", "poll_path")
    @classmethod
    def _is_a_path(cls, value: str | None) -> str | None:
        if value is not None and (not value.startswith("/") or value.startswith("//")):
            raise ValueError("must begin with one slash: it goes behind the base URL")
        return value

    @model_validator(mode="after")
    def _check_consistency(self) -> GatewayCredentials:
        if self.base_url is not None:
            try:
                check_base_url(self.base_url, private_network=self.private_network)
            except ValueError as error:
                raise ValueError(f"base_url {error}") from error
        if self.poll_path is not None and "{task_id}" not in self.poll_path:
            raise ValueError("poll_path must hold {task_id}")
        if (self.app_id is None) != (self.secret_key is None):
            raise ValueError("app_id and secret_key go together")
        self._check_region()
        if self.app_id is not None and gateway_facts(self.gateway).token is None:
            raise ValueError(f"app_id and secret_key must stay empty for {self.gateway}, which exchanges no access tokens; give api_key")
        if self.temporary_upload and gateway_facts(self.gateway).upload_policy is None:
            raise ValueError(f"temporary_upload must stay false for {self.gateway}, which documents no temporary storage")
        return self

    def _check_region(self) -> None:
        facts = gateway_facts(self.gateway)
        if self.region is not None and self.region not in facts.regions:
            known = f"one of {', '.join(facts.regions)}" if facts.regions else f"left empty for {self.gateway}, which has none"
            raise ValueError(f"region must be {known} (got {self.region!r})")
        if self.workspace is not None and not facts.regions:
            raise ValueError(f"workspace must be left empty for {self.gateway}, whose address holds none (got {self.workspace!r})")
        if self.region is not None and self.base_url is None and facts.address(self.region, self.workspace) is None:
            raise ValueError(f"workspace must be given for the region {self.region}, which has no address for keys of any workspace")

    @property
    def account_label(self) -> str:
        """The label of the account that pays: `account`, else "sandbox" for a gateway on this machine, else the region, else "default".

        Example:
            >>> GatewayCredentials(gateway="ttapi", base_url="http://127.0.0.1:8808/ttapi").account_label
            'sandbox'
        """
        if self.account is None and is_loopback(host_of(self._address() or "") or ""):
            # A sandbox's jobs must never pass for a paid gateway's in the journal.
            return "sandbox"
        return self.account or self.region or "default"

    def _address(self) -> str | None:
        return self.base_url or gateway_facts(self.gateway).address(self.region, self.workspace)

    def to_account(self) -> Account:
        """The account as the engine takes it.

        Returns:
            The account, with `account_label` as its label.

        Raises:
            AuthenticationFailed: When there is no base URL or no key.

        Example:
            >>> GatewayCredentials(gateway="ttapi", api_key="k").to_account().base_url
            'https://api.ttapi.io'
        """
        base_url = self._address()
        needed = {"base_url": base_url, "api_key": self.app_id if self.api_key is None else self.api_key}
        names = environment_names(self.gateway)
        missing = [f"{field} (or {names[field]})" for field, value in needed.items() if value is None]
        if base_url is None or missing:
            raise AuthenticationFailed(
                f"The credentials for {self.gateway} lack {' and '.join(missing)}.",
                gateway=self.gateway,
                account=self.account,
                advice="Nothing was sent. Save a GatewayCredentials block with it, or set the environment variable.",
            )
        return Account(
            gateway=self.gateway,
            base_url=base_url,
            label=self.account_label,
            key=self.api_key,
            app_id=self.app_id,
            secret_key=self.secret_key,
            submit_path=self.submit_path,
            poll_path=self.poll_path,
            temporary_upload=self.temporary_upload,
            private_network=self.private_network,
            prices=tuple(self.prices),
            credentials=self._block_document_name,
            region=self.region,
        )

    @classmethod
    def from_environment(cls, gateway: str, variables: Mapping[str, str] | None = None) -> GatewayCredentials:
        """Credentials from `<GATEWAY>_API_KEY`, `_BASE_URL` and `_ACCOUNT`.

        `_SUBMIT_PATH` and `_POLL_PATH` replace the catalog's paths. A gateway that exchanges access tokens also has `_APP_ID` and
        `_SECRET_KEY`, one with regions `_REGION` and `_WORKSPACE`, one with a temporary storage `_TEMPORARY_UPLOAD`, which is true or
        false, as is `_PRIVATE_NETWORK`. `_PRICES` names a price list in TOML, as `prefect_happyhorse.catalog.read_prices` reads it.

        Args:
            gateway: Id of the gateway.
            variables: Where they are looked up; by default in the environment of this process.

        Returns:
            The credentials; what is not set in the environment is empty.

        Raises:
            ValueError: When there is no such gateway, or a value is wrong.
            OSError: When the price list cannot be read.

        Example:
            >>> import os
            >>> os.environ["TTAPI_API_KEY"] = "k"
            >>> GatewayCredentials.from_environment("ttapi").gateway
            'ttapi'
        """
        cls._is_known(gateway)
        # A traceback may show what is here.
        found: dict[str, Any] = {
            field: SecretStr(value) if field in {"api_key", "secret_key"} else value
            for field, name in environment_names(gateway).items()
            if (value := (os.environ if variables is None else variables).get(name))
        }
        if "prices" in found:
            found["prices"] = list(read_prices(Path(found["prices"]).read_text(encoding="utf-8")))
        return cls.model_validate({"gateway": gateway, **found})

    @classmethod
    async def find(cls, name: str) -> GatewayCredentials:
        """The credentials that a name stands for: the block of that name, else, for a gateway's id, the environment.

        Args:
            name: Name of a saved block, or id of a gateway.

        Returns:
            The credentials.

        Raises:
            ValueError: When there is neither such a block nor such a gateway.
        """
        try:
            found = await cls.aload(name, validate=False)
        except ValueError as error:
            if name in GATEWAYS:
                return cls.from_environment(name)
            raise ValueError(
                f"There is no GatewayCredentials block named {name!r}, and it is no gateway either"
                f" ({', '.join(GATEWAYS)}). Nothing was sent."
            ) from error
        if (gateway := vars(found).get("gateway")) not in GATEWAYS:
            # Prefect builds a block without validation, and may drop a field that it does not take.
            said = "a gateway that is" if gateway is None else f"the gateway {gateway!r}, which is"
            raise ValueError(f"The GatewayCredentials block {name!r} is of {said} not registered in this process. Nothing was sent.")
        return found

    @classmethod
    async def of_job(cls, *, gateway: str, account: str, name: str | None, job: Job | None = None) -> GatewayCredentials:
        """The credentials of the account that paid for a job.

        Args:
            gateway: Id of the gateway.
            account: The account's label.
            name: Name of the block that the job was bought with, where there was one.
            job: The job, for what is said of it; None for a submit of which nobody knows whether it became one.

        Returns:
            The credentials: those of the block, else those of the environment.

        Raises:
            PollRejected: When there are none, or these are not of that account, so that the gateway would not know the job.
        """
        with error_context(job, gateway=gateway, account=account):
            try:
                found = cls.from_environment(gateway) if name is None else await cls.find(name)
                label = found.to_account().label
            except (AuthenticationFailed, ValueError, OSError) as error:
                raise no_payer(error, job) from error
            if (found.gateway, label) != (gateway, account):
                where = f"The environment's {gateway} credentials are" if name is None else f"The block {name!r} is"
                what = f"{where} of account {label!r} of {found.gateway}; the job belongs to {account!r} of {gateway}."
                raise no_payer(ValueError(what), job)
        return found
