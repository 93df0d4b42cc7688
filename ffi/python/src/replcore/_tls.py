"""Mutual TLS 1.3 between the members of a cluster, as members of the daemon have it.

Both ends of a link present a certificate that one of the authorities has signed. What it says of hosts is not
looked at: it names a member, and a member may only speak as itself. Sessions are never resumed.
"""

from __future__ import annotations

import dataclasses
import os
import ssl
from typing import Any, List, Mapping, Optional, Tuple

from .errors import ReplcoreError
from .record import name_id

NAME_URI_PREFIX = "replcore:"
"""What stands before a name in a URI among the alternative names of its certificate."""
HANDSHAKE_TURNS = 4
PARTIAL_CHAIN = 0x80000
"""An authority may be one that another has signed. ``ssl`` has the name since Python 3.10."""


@dataclasses.dataclass(frozen=True)
class _Contexts:
    """The contents of the files, and what the file system said of them before they were read."""

    name: str
    server: ssl.SSLContext
    client: ssl.SSLContext
    stamps: Tuple[Tuple[int, int, int], ...]


class Tls:
    """The contexts for both ends of a link, made of three files in PEM form that may change.

    Raises:
        ReplcoreError: the files are not good, do not go together, or name another member.
    """

    def __init__(self, ca: str, cert: str, key: str, name: str) -> None:
        self._files = ca, cert, key
        self._name = name
        self._contexts = self._read(self._stamps())
        self._seen = self._contexts.stamps

    @property
    def server(self) -> ssl.SSLContext:
        """For links that others open."""
        return self._contexts.server

    @property
    def client(self) -> ssl.SSLContext:
        """For links that this member opens."""
        return self._contexts.client

    def reload(self) -> bool:
        """Takes files that have changed; open links go on. Returns whether it did.

        Raises:
            ReplcoreError: they are not good; once for each change, and what was read before stays in force.
        """
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._seen = stamps
        self._contexts = self._read(stamps)
        return True

    def _stamps(self) -> Tuple[Tuple[int, int, int], ...]:
        stamps = []
        for path in self._files:
            try:
                found = os.stat(path)
                stamps.append((found.st_mtime_ns, found.st_ino, found.st_size))
            except OSError:
                stamps.append((0, 0, 0))
        return tuple(stamps)

    def _read(self, stamps: Tuple[Tuple[int, int, int], ...]) -> _Contexts:
        ca, cert, key = self._files
        for path in self._files:
            try:
                open(path, "rb").close()
            except OSError as error:
                raise ReplcoreError(f"{path}: {error.strerror}; give a file that this member can read") from None
        server, client = (_context(protocol, *self._files) for protocol in (
            ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT))
        try:
            name = certificate_name(_own_certificate(server, client))
        except ssl.SSLError as error:
            raise ReplcoreError(f"{cert}: not a certificate that {ca} vouches for: {reason_of(error)}") from None
        except ReplcoreError as error:
            raise ReplcoreError(f"{cert}: {error}") from None
        if name != self._name:
            raise ReplcoreError(
                f"{cert} is for {name}, but this member is {self._name}; use the certificate of {self._name}")
        return _Contexts(name, server, client, stamps)


def _context(protocol: int, ca: str, cert: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= PARTIAL_CHAIN
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise ReplcoreError(f"{ca}: no certificate in PEM form: {reason_of(error)}") from None
    try:
        context.load_cert_chain(cert, key, _no_password)
    except ssl.SSLError as error:
        raise ReplcoreError(f"{cert} and {key} are no certificate and its key: {reason_of(error)}") from None
    except PermissionError as error:
        raise ReplcoreError(f"{key}: {error}") from None
    return context


def _no_password() -> str:
    # Otherwise OpenSSL asks at the terminal, and the program waits.
    raise PermissionError("the key is encrypted; give one that is not, readable by this member alone")


def _own_certificate(server: ssl.SSLContext, client: ssl.SSLContext) -> Mapping[str, Any]:
    """The own certificate as the others see it: by a handshake with itself, so that what they would refuse
    is told at the start.
    """
    upward, downward = ssl.MemoryBIO(), ssl.MemoryBIO()
    dialer = client.wrap_bio(downward, upward)
    listener = server.wrap_bio(upward, downward, server_side=True)
    for _ in range(HANDSHAKE_TURNS):
        for end in (dialer, listener):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return listener.getpeercert() or {}


def certificate_name(certificate: Optional[Mapping[str, Any]]) -> str:
    """The name of the member that a certificate is for: of a URI ``replcore:NAME``, of the common name, or of
    the only DNS name, the first that is there. `certificate` is what ``getpeercert()`` answers.

    Raises:
        ReplcoreError: it names none, or several.
    """
    certificate = certificate or {}
    alternatives = certificate.get("subjectAltName", ())
    start = len(NAME_URI_PREFIX)
    subject: List[Tuple[str, str]] = [part for parts in certificate.get("subject", ()) for part in parts]
    for candidates in (
        [text[start:] for kind, text in alternatives if kind == "URI" and text.startswith(NAME_URI_PREFIX)],
        [text for kind, text in subject if kind == "commonName"],
        [text for kind, text in alternatives if kind == "DNS"],
    ):
        if len(candidates) > 1:
            raise ReplcoreError(f"the certificate has several names ({', '.join(candidates)}): which member?")
        if candidates:
            try:
                name_id(candidates[0])
            except ValueError as error:
                raise ReplcoreError(str(error)) from None
            return candidates[0]
    raise ReplcoreError("the certificate names no member: it needs a URI replcore:NAME or a common name")


def reason_of(error: Exception) -> str:
    """What went wrong in a handshake, in words."""
    verified = getattr(error, "verify_message", None)
    reason = getattr(error, "reason", None)
    known = {
        "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it has no certificate",
        "WRONG_VERSION_NUMBER": "it does not speak TLS",
        "HTTP_REQUEST": "it does not speak TLS",
    }
    return verified or known.get(reason or "") or (reason or "").replace("_", " ").lower() or str(error)
