"""Where the pictures of the blocks come from."""

from __future__ import annotations

__all__ = ["LOGOS"]

LOGOS = "https://raw.githubusercontent.com/PrefectHQ/prefect/420d0d6a78bb6df1fc18bcf188fdad43c1d22ea9/assets/block-logos"
