"""replcore: messages between a hub and many leaves over links that fail, for Python programs.

::

    import asyncio, replcore

    async def main():
        async with replcore.Leaf("till-7", broker="localhost:8080", path="till-7.data") as leaf:
            await leaf.post(b"sold: 2 apples", type="sale")
            async for message in leaf.messages():
                print(message.origin, message.type, message.body)

    asyncio.run(main())

* :class:`Leaf` posts and receives, with a store of its own on disk; ``help(replcore.Leaf)``.
* :mod:`replcore.machine` has the state machines themselves, for any other loop.
* Every error is a :class:`ReplcoreError` whose text says what to do.

A hub is the program ``replcore hub``.
"""

from . import machine
from ._library import version
from .errors import (
    Closed,
    InvalidMessage,
    LibraryError,
    LogError,
    LogFull,
    QueueFull,
    ReplcoreError,
    StatusError,
)
from .leaf import Leaf, LeafStatus
from .record import Message, ReceivedMessage

__version__ = version()

__all__ = [
    "Closed",
    "InvalidMessage",
    "Leaf",
    "LeafStatus",
    "LibraryError",
    "LogError",
    "LogFull",
    "Message",
    "QueueFull",
    "ReceivedMessage",
    "ReplcoreError",
    "StatusError",
    "machine",
]
