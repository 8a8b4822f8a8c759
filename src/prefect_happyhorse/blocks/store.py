"""The block that says where the results are kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from prefect.blocks.core import Block
from prefect.types import SecretDict
from pydantic import ConfigDict, Field, HttpUrl, field_validator

from prefect_happyhorse.blocks.logos import LOGOS
from prefect_happyhorse.domain.settings import current
from prefect_happyhorse.engine.storage.backend import HiddenOptions
from prefect_happyhorse.engine.storage.store import DEFAULT_TEMPLATE, Store, check_no_key

__all__ = ["MediaStore"]


class MediaStore(Block):
    """Where results and the journal are kept.

    Args:
        url: An fsspec URL such as `s3://bucket/folder`, or a folder on this machine.
        options: What fsspec needs to open it, such as `{"key": ..., "secret": ...}`; kept secret.
        path_template: Where a result goes below the URL.
        public_base_url: The web address under which others read the store, where there is one.
        presign_s: For how many seconds addresses are signed, where the store can sign them.

    Example:
        Load a stored media store:
        ```python
        from prefect_happyhorse import MediaStore

        store = MediaStore.load("BLOCK_NAME")
        ```
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    _block_type_name: ClassVar[str | None] = "HappyHorse Media Store"
    _block_type_slug: ClassVar[str | None] = "happyhorse-media-store"
    _logo_url: ClassVar[HttpUrl | None] = HttpUrl(f"{LOGOS}/local-file-system.png")
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl("https://docs.prefect.io/v3/concepts/blocks")

    url: str = Field(default="outputs", title="URL", description="An fsspec URL such as s3://bucket/folder, or a folder on this machine.")
    options: SecretDict = Field(
        default_factory=lambda: SecretDict({}), description="What fsspec needs to open the URL, such as key and secret."
    )
    path_template: str = Field(default=DEFAULT_TEMPLATE, description="Where a result goes below the URL.")
    public_base_url: str | None = Field(
        default=None, title="Public base URL", description="The web address under which others read the store."
    )
    presign_s: int | None = Field(
        default=None, ge=60, description="For how many seconds addresses are signed, where the store can sign them."
    )

    @field_validator("url")
    @classmethod
    def _without_key(cls, url: str) -> str:
        # A block is saved with its URL in the clear.
        return check_no_key(url)

    def to_store(self) -> Store:
        """The store as the engine takes it.

        Returns:
            The store.

        Raises:
            ValueError: When the path template names a field that there is not.

        Example:
            >>> MediaStore(url="memory://pictures").to_store().url
            'memory://pictures'
        """
        return Store(
            url=self.url,
            options=HiddenOptions(self.options.get_secret_value()),
            template=self.path_template,
            public_base_url=self.public_base_url,
            presign_s=self.presign_s,
        )

    @classmethod
    async def find(cls, name: str | Path | None) -> MediaStore:
        """The store that a name stands for: a saved block, a folder or an fsspec URL; without one `HAPPYHORSE_STORE`, else `outputs`.

        Args:
            name: Name of a saved block: lower-case letters, digits and dashes. Anything else, and any `Path`, is a folder or a URL.

        Returns:
            The store.

        Raises:
            ValueError: When there is no such block.
        """
        if not name:
            return cls(url=current().store or "outputs")
        if isinstance(name, Path) or not re.fullmatch("[a-z0-9-]+", name):
            return cls(url=str(name))
        try:
            return await cls.aload(name, validate=False)
        except ValueError as error:
            # No folder is made of a name that was misspelt: in an empty journal nothing is known to be paid for.
            raise ValueError(f"There is no MediaStore block named {name!r}; for a folder write './{name}'. Nothing was sent.") from error
