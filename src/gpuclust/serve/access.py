"""Who is answered: the names that a server is asked by, and its token. The API and the explorer share these rules.

A page elsewhere can point a name of its own at 127.0.0.1 (DNS rebinding) and then read a local server: so a server on this
machine alone answers only to the names of this machine. What listens for others can be asked for a token.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gpuclust.errors import ConfigurationError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
TOKEN_VARIABLE = "GPUCLUST_TOKEN"
MIN_TOKEN_LENGTH = 8
# Addresses that mean every interface of the machine.
WILDCARDS = ("0.0.0.0", "::", "")


@dataclass(frozen=True)
class Access:
    """``hosts`` are the only names that a server answers to (empty: any); ``token`` is what every request must bring
    (empty: none). ``generated`` tells a token that was made here from one that its user knows."""

    hosts: tuple[str, ...] = ()
    token: str = field(default="", repr=False)
    generated: bool = False

    def answers_to(self, host: str) -> bool:
        """Whether a ``Host`` header is one of the names; its port does not matter."""
        return not self.hosts or any(_matches(name_of(host), pattern) for pattern in self.hosts)

    def accepts(self, authorization: str) -> bool:
        """Whether an ``Authorization`` header brings the token (RFC 6750)."""
        scheme, _, sent = authorization.strip().partition(" ")
        return not self.token or (scheme.lower() == "bearer" and self.is_token(sent.strip()))

    def is_token(self, sent: str) -> bool:
        """Whether a text is the token, in a time that does not depend on where they differ."""
        return bool(self.token) and hmac.compare_digest(sent.encode("utf-8", "replace"), self.token.encode())

    def is_own_origin(self, origin: str, host: str) -> bool:
        """Whether an ``Origin`` header is the page's own: it names the host that was asked, or one that is allowed by
        name (a proxy may change the host, so a name beyond this machine's suffices)."""
        try:
            asked = urlsplit(origin).netloc.lower()
        except ValueError:
            return False
        if not asked:  # "null": a page without an origin
            return False
        named = [name for name in self.hosts if name not in (*LOOPBACK, "*")]
        return asked == host.strip().lower() or any(_matches(name_of(asked), name) for name in named)


def access(host: str, allowed_hosts: Sequence[str] = (), token: str | None = None) -> Access:
    """The rules for a server that listens on ``host``.

    On an address of this machine alone only its own names are answered, elsewhere any, unless ``allowed_hosts`` names
    some (``*`` is any name, ``*.example.org`` those below one). ``token`` is the option as typed: None where it was not
    given, then GPUCLUST_TOKEN counts; empty where a token is to be made. Raises ConfigurationError for what is neither
    a name nor a usable token.
    """
    generated = token == ""
    if token is None:
        token = os.environ.get(TOKEN_VARIABLE, "")
    elif generated:
        token = secrets.token_urlsafe(24)
    if token and (len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token):
        raise ConfigurationError(
            f"the token must have at least {MIN_TOKEN_LENGTH} characters, all of them printable ASCII without spaces"
        )
    for name in allowed_hosts:
        if not name.strip() or "/" in name or "@" in name:
            raise ConfigurationError(f"--allowed-hosts {name} is not the name of a host; write it as music.example.org")
    own = () if host in WILDCARDS else (_bracketed(host.lower()),)
    names = tuple(name_of(name) for name in allowed_hosts)
    if "*" in names:
        return Access((), token, generated)
    if names or is_local(host):
        return Access((*dict.fromkeys((*LOOPBACK, *own, *names)),), token, generated)
    return Access((), token, generated)


def is_local(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    return host == "localhost" or host.startswith("127.") or host == "::1"


def warning(host: str, rules: Access) -> str | None:
    """What to say of a server that others can reach and that asks for no token."""
    if rules.token or is_local(host):
        return None
    return (
        f"whoever can reach {host or 'this machine'} can read this export; --token (or {TOKEN_VARIABLE}) asks them for a "
        "token"
    )


def name_of(host: str) -> str:
    """A Host header, or a name that was typed, without its port and in lower case; an IPv6 address in brackets."""
    name = host.strip().lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return (_bracketed(name) if name.count(":") > 1 else name.partition(":")[0]).rstrip(".")


def _matches(name: str, pattern: str) -> bool:
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name and not name.startswith("[") else name
