"""The client for asyncio: publishes one by one or pipelined, and subscribes."""

from fanfare._errors import Error
from fanfare.aio._client import Client, connect
from fanfare.aio._stream import Stream
from fanfare.aio._subscription import Subscription

__all__ = ["Client", "Error", "Stream", "Subscription", "connect"]
