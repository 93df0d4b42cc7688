"""replcore: messages between a hub and many leaves over links that fail, and clusters that elect a leader.

::

    import asyncio, replcore

    async def main():
        async with replcore.Leaf("till-7", broker="localhost:8080", path="till-7.data") as leaf:
            await leaf.post(b"sold: 2 apples", type="sale")
            async for message in leaf.messages():
                print(message.origin, message.type, message.body)

    asyncio.run(main())

* :class:`Leaf` posts and receives, with a store of its own on disk; ``help(replcore.Leaf)``.
* :class:`Cluster` elects a leader among programs and knows who is there; ``help(replcore.Cluster)``.
* :mod:`replcore.machine` has the state machines themselves, for any other loop.
* Every error is a :class:`ReplcoreError` whose text says what to do.

A hub is the program ``replcore hub``.
"""

from . import machine
from ._library import version
from .cluster import Cluster, ClusterEvent, Peer, QCluster
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
    "Cluster",
    "ClusterEvent",
    "InvalidMessage",
    "Leaf",
    "LeafStatus",
    "LibraryError",
    "LogError",
    "LogFull",
    "Message",
    "Peer",
    "QCluster",
    "QueueFull",
    "ReceivedMessage",
    "ReplcoreError",
    "StatusError",
    "machine",
]
