"""The blocks: who pays, which gateways may stand in for each other, and where the results are kept."""

from prefect_happyhorse.blocks.credentials import GatewayCredentials
from prefect_happyhorse.blocks.pool import GatewayPool
from prefect_happyhorse.blocks.store import MediaStore
from prefect_happyhorse.settings import HappyHorseSettings

__all__ = ["GatewayCredentials", "GatewayPool", "HappyHorseSettings", "MediaStore"]
