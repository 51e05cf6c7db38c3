"""Publishes typed realtime events with Fanfare.

`fanfare.connect` gives a client for ordinary code, `fanfare.aio.connect` one for asyncio, which also has streams and
subscriptions. Both try again by themselves, under one idempotency key an event, so that each event is published once.
"""

from fanfare._client import Client, connect
from fanfare._errors import Error

__all__ = ["Client", "Error", "connect"]
