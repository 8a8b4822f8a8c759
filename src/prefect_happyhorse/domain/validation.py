"""What pydantic found wrong, as sentences."""

from __future__ import annotations

from pydantic import ValidationError

__all__ = ["validation_problems"]


def validation_problems(error: ValidationError) -> tuple[str, ...]:
    """Each problem of a validation error as one line: where it is, and what is wrong.

    Args:
        error: What pydantic raised.

    Returns:
        The problems.

    Example:
        >>> from prefect_happyhorse.domain.requests import parse_request
        >>> try:
        ...     parse_request({"capability": "text_to_image", "prompt": "A white horse"})
        ... except ValidationError as error:
        ...     validation_problems(error)
        ('text_to_image.model: Field required',)
    """
    return tuple(
        f"{'.'.join(map(str, problem['loc'])) or 'request'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False)
    )
