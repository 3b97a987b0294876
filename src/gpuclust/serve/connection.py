"""Close connections whose request does not arrive in time; uvicorn has no such timeout.

Without it, a few hundred requests sent at one byte per minute would keep as many connections open (slowloris).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEAD_SECONDS = 10.0  # for the request line and the headers
BODY_SECONDS = 20.0  # for a body, plus one second for each
BYTES_A_SECOND = 1_000  # of the body received
_BODY = b'{"type":"about:blank","title":"Request Timeout","status":408,"detail":"the request did not arrive in time"}'
TOO_LATE = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: application/problem+json\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


class TimedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol (h11, or httptools where it is installed) with a limit on the time that a request takes to arrive."""

    _deadline: asyncio.TimerHandle | None = None
    _begun = False  # a part of a request has arrived
    _reading_body = False
    _received = 0
    _upgraded = False  # to a WebSocket, which has time limits of its own

    def connection_made(self, transport: Any) -> None:
        """Start the timer for the first request of a connection."""
        super().connection_made(transport)
        self._watch(HEAD_SECONDS)

    def data_received(self, data: bytes) -> None:
        """Start, stop or keep the timer when bytes arrive."""
        super().data_received(data)
        if self._upgraded:
            return
        self._begun, cycle = True, self.cycle
        answering = cycle is not None and not cycle.response_complete
        if self.transport.is_closing() or (answering and not cycle.more_body):
            self._forget()
        elif answering:
            if not self._reading_body:
                self._forget()
                self._begun, self._reading_body, self._received = True, True, 0
            self._received += len(data)
            self._watch(BODY_SECONDS)
        else:  # part of the next request's head
            self._watch(HEAD_SECONDS)

    def handle_websocket_upgrade(self, *arguments: Any) -> None:
        """Stop the timer: another protocol takes over the connection."""
        self._forget()
        self._upgraded = True
        super().handle_websocket_upgrade(*arguments)

    def connection_lost(self, error: Exception | None) -> None:
        """Stop the timer of a closed connection."""
        self._forget()
        super().connection_lost(error)

    def _watch(self, seconds: float) -> None:
        """Start the timer unless it is running."""
        if self._deadline is None:
            self._deadline = self.loop.call_later(seconds, self._expire)

    def _forget(self) -> None:
        self._begun = self._reading_body = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        """Close the connection, unless the body arrives fast enough to extend the time."""
        self._deadline = None
        if self._reading_body and self._received:
            earned, self._received = self._received / BYTES_A_SECOND, 0
            if earned >= 1:
                self._watch(earned)
                return
        if not self.transport.is_closing():
            if self._begun and not (self._reading_body and self.cycle.response_started):
                self.transport.write(TOO_LATE)
            self.transport.close()
