"""The stores that data sets are read from and written to."""

from tests.engine.storage.conftest import any_store, s3, s3_endpoint

__all__ = ["any_store", "s3", "s3_endpoint"]
