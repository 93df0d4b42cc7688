"""What can go wrong. Every message names the thing and says what to do."""

from __future__ import annotations


class ReplcoreError(Exception):
    """Any error of this package."""


class LibraryError(ReplcoreError):
    """The C library is missing, or does not belong to this package."""


class StatusError(ReplcoreError):
    """The C library refused a call.

    ``status`` is its number, one of :class:`replcore.machine.Status`. Nothing has changed.
    """

    def __init__(self, call: str, status: int, text: str) -> None:
        super().__init__(f"{call}: {text}")
        self.status = status


class InvalidMessage(ReplcoreError, ValueError):
    """A message that cannot be posted as it is: a part is too long or of a wrong form."""


class QueueFull(ReplcoreError):
    """The outgoing queue is at its limit. Nothing was posted.

    Wait with :meth:`replcore.Leaf.wait_drained`, post later, or raise the limit.
    """


class LogError(ReplcoreError):
    """The folder that a leaf keeps its messages in cannot be used."""


class LogFull(LogError):
    """There is no space on the disk. Nothing was posted; free some and post again."""


class Closed(ReplcoreError):
    """The leaf is closed, or not yet entered with ``async with``."""
