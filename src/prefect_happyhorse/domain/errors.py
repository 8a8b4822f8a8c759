"""Every way in which making a picture or a video can fail.

    GenerationError
    ├── RequestRejected          the request was refused, and no work was started
    │   ├── BudgetExceeded       it would cost more than the user's own budget allows
    │   ├── InvalidRequest       a field, option or medium breaks a rule of the route
    │   ├── AuthenticationFailed the key is missing, wrong or not allowed to do this
    │   ├── ModerationRejected   the provider's content rules refuse the prompt or a medium
    │   └── QuotaExceeded        balance, plan or quota is used up
    ├── GatewayUnavailable       the gateway did not take the call; the same call may be made again
    │   └── RateLimited          the gateway asks for fewer calls; wait as it says, then call again
    ├── SubmissionUncertain      nobody knows whether the submit was accepted: never sent again by itself
    ├── PollRejected             the gateway refuses to say how a job is doing; the job is paid for and goes on
    ├── CheckFailed              what was made did not pass the caller's own check, or the check itself failed; it is kept
    ├── JobFailed                the provider ended the job without a result
    ├── JobTimedOut              the deadline passed first; the job may still finish and be collected
    ├── JobExpired               the gateway no longer knows the job or no longer keeps its result
    ├── DownloadFailed           a result that is paid for could not be fetched or kept, or the store failed before
    ├── MediaUnreachable         an input medium cannot be given an address that the gateway can read
    └── ProtocolError            the gateway answered in a way that its documentation does not describe
    CatalogError                 the catalog's own data is wrong, or nothing in it fits

Each error says what happened, to which job, whether money may have been spent and what to do now. All of them keep every
attribute through `pickle` and through Prefect's result store: each takes one positional message and optional keywords.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from prefect_happyhorse.domain.assets import MediaAsset
    from prefect_happyhorse.domain.jobs import Job

__all__ = [
    "AuthenticationFailed",
    "BudgetExceeded",
    "CatalogError",
    "CheckFailed",
    "DownloadFailed",
    "GatewayUnavailable",
    "GenerationError",
    "InvalidRequest",
    "JobExpired",
    "JobFailed",
    "JobTimedOut",
    "MediaUnreachable",
    "ModerationRejected",
    "Money",
    "PollRejected",
    "ProtocolError",
    "QuotaExceeded",
    "RateLimited",
    "RequestRejected",
    "SubmissionUncertain",
    "error_context",
    "is_retryable",
]


class Money(str, Enum):
    """What a failure means for the bill.

    Example:
        >>> print(f"Money: {Money.MAY_BE_SPENT}.")
        Money: may be spent.
    """

    NOT_SPENT = "not spent"
    MAY_BE_SPENT = "may be spent"
    SPENT = "spent"

    __str__ = str.__str__
    __format__ = str.__format__


class GenerationError(Exception):
    """Something went wrong between a request and its asset.

    Args:
        message: What happened, in one or two sentences that name values.
        gateway: Id of the gateway, for example `"ttapi"`.
        account: Label of the account that was used.
        model: The model that was asked for.
        capability: The capability that was asked for, for example `"text_to_video"`.
        task_id: The provider's id of the job, where one is known.
        request_id: The provider's id of the HTTP exchange, where one was given.
        digest: The request digest, which names the journal entry.
        code: The provider's own error code.
        status_code: The HTTP status of the answer.
        money: Whether money may have been spent; each class has its own usual answer.
        advice: What to do now.

    Example:
        >>> error = GenerationError("It broke.", gateway="ttapi", task_id="t-1", advice="Try later.")
        >>> print(error)
        It broke. [gateway=ttapi task_id=t-1] Try later.
    """

    retryable: ClassVar[bool] = False
    """Whether the very same step may be tried again without buying anything twice."""

    usual_money: ClassVar[Money | None] = None
    """What this kind of failure means for the bill where the error itself does not say."""

    def __init__(
        self,
        message: str = "",
        *,
        gateway: str | None = None,
        account: str | None = None,
        model: str | None = None,
        capability: str | None = None,
        task_id: str | None = None,
        request_id: str | None = None,
        digest: str | None = None,
        code: str | None = None,
        status_code: int | None = None,
        money: Money | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(message)
        self.gateway = gateway
        self.account = account
        self.model = model
        self.capability = capability
        self.task_id = task_id
        self.request_id = request_id
        self.digest = digest
        self.code = code
        self.status_code = status_code
        self.money: Money | None = self.usual_money if money is None else Money(money)
        self.advice = advice

    @property
    def message(self) -> str:
        """What happened, without the facts about the job."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        names = ("gateway", "account", "model", "capability", "task_id", "request_id", "code", "status_code")
        known = ((name.removesuffix("_code"), getattr(self, name)) for name in names)
        facts = " ".join(f"{name}={value}" for name, value in known if value is not None)
        parts = (self.message, facts and f"[{facts}]", self.money and f"Money: {self.money}.", self.advice)
        return " ".join(filter(None, parts))


def is_retryable(error: object) -> bool:
    """Whether a step may be tried again after an error: one that says so of itself, or a store or network that failed as such.

    Example:
        >>> is_retryable(TimeoutError()), is_retryable(FileNotFoundError()), is_retryable(SubmissionUncertain())
        (True, False, False)
    """
    said: bool | None = getattr(error, "retryable", None)
    lasting = (FileExistsError, FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
    return said if said is not None else isinstance(error, OSError) and not isinstance(error, lasting)


class RequestRejected(GenerationError):
    """When the request was refused and no work was started."""

    usual_money = Money.NOT_SPENT


class BudgetExceeded(RequestRejected):
    """When a job would cost more than the user's own budget allows, or what it costs is not known."""


class InvalidRequest(RequestRejected):
    """When a field, option or medium breaks a rule, found here before anything is sent or by the gateway.

    Args:
        message: What happened.
        problems: Every problem that was found, each a sentence with field, value and allowed range.
        facts: See `GenerationError`.
    """

    def __init__(self, message: str = "", *, problems: tuple[str, ...] = (), **facts: object) -> None:
        super().__init__(message, **facts)  # pyright: ignore[reportArgumentType] -- the facts are GenerationError's
        self.problems = problems

    def __str__(self) -> str:
        lines = [super().__str__(), *(f"  - {problem}" for problem in self.problems)]
        return "\n".join(lines)


class AuthenticationFailed(RequestRejected):
    """When the key is missing, wrong, expired or not allowed to do this."""


class ModerationRejected(RequestRejected):
    """When the provider's content rules refuse the prompt or a medium."""


class QuotaExceeded(RequestRejected):
    """When balance, plan or quota is used up."""


class GatewayUnavailable(GenerationError):
    """When the gateway did not take the call: refused connection, DNS, an overloaded or broken server.

    Args:
        message: What happened.
        retry_after_s: Seconds that the gateway asks to wait.
        facts: See `GenerationError`.
    """

    retryable = True

    def __init__(self, message: str = "", *, retry_after_s: float | None = None, **facts: object) -> None:
        super().__init__(message, **facts)  # pyright: ignore[reportArgumentType] -- the facts are GenerationError's
        self.retry_after_s = retry_after_s


class RateLimited(GatewayUnavailable):
    """When the gateway asks for fewer calls."""

    usual_money = Money.NOT_SPENT


class SubmissionUncertain(GenerationError):
    """When nobody knows whether the submit was accepted, so that sending it again could buy it twice."""

    usual_money = Money.MAY_BE_SPENT


class PollRejected(GenerationError):
    """When the gateway refuses to say how a job is doing, for example since the key is wrong; the job is paid for and goes on."""

    usual_money = Money.SPENT


class CheckFailed(GenerationError):
    """When nothing that was made passed the caller's own check, or the check itself failed; what was made is paid for and kept.

    Args:
        message: What happened.
        assets: Every take that was made and did not pass, in their order.
        facts: See `GenerationError`.
    """

    usual_money = Money.SPENT

    def __init__(self, message: str = "", *, assets: tuple[MediaAsset, ...] = (), **facts: object) -> None:
        super().__init__(message, **facts)  # pyright: ignore[reportArgumentType] -- the facts are GenerationError's
        self.assets = assets


class JobFailed(GenerationError):
    """When the provider ended the job without a result."""

    usual_money = Money.MAY_BE_SPENT

    job: Job | None = None
    """The job, where the journal knew of its end before."""


class JobTimedOut(GenerationError):
    """When the deadline passed first; the job may still finish and be collected."""

    usual_money = Money.SPENT


class JobExpired(GenerationError):
    """When the gateway no longer knows the job or no longer keeps its result."""

    usual_money = Money.SPENT


class DownloadFailed(GenerationError):
    """When a result that is paid for could not be fetched or kept, or the store failed before."""

    retryable = True
    usual_money = Money.SPENT


class MediaUnreachable(GenerationError):
    """When an input medium cannot be given an address that the gateway can read."""

    usual_money = Money.NOT_SPENT


class ProtocolError(GenerationError):
    """When the gateway answered in a way that its documentation does not describe.

    Args:
        message: What happened.
        excerpt: The start of the answer, as text.
        facts: See `GenerationError`.
    """

    def __init__(self, message: str = "", *, excerpt: str = "", **facts: object) -> None:
        super().__init__(message, **facts)  # pyright: ignore[reportArgumentType] -- the facts are GenerationError's
        self.excerpt = excerpt

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} Answer: {self.excerpt!r}" if self.excerpt else text


class CatalogError(Exception):
    """When the catalog's own data is wrong, or nothing in it fits what is asked for."""


@contextmanager
def error_context(
    job: Job | None = None,
    *,
    gateway: str | None = None,
    account: str | None = None,
    model: str | None = None,
    capability: str | None = None,
    digest: str | None = None,
) -> Generator[None]:
    """Say which job an error that is raised inside is about; what the error knows already is kept.

    Args:
        job: The job, which knows all of the others.
        gateway: Id of the gateway.
        account: Label of the account.
        model: The model.
        capability: The capability.
        digest: The request digest.

    Example:
        >>> try:
        ...     with error_context(gateway="ttapi"):
        ...         raise JobExpired("It is gone.")
        ... except JobExpired as error:
        ...     error.gateway
        'ttapi'
    """
    facts = {"gateway": gateway, "account": account, "model": model, "capability": capability, "digest": digest}
    try:
        yield
    except GenerationError as error:
        for name in (*facts, "task_id", "request_id"):
            if getattr(error, name) is None:
                setattr(error, name, facts.get(name) if job is None else getattr(job, name))
        raise
