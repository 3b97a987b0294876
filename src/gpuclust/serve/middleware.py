"""ASGI middleware for all routes: allowed hosts, token, maximum body length, ETags, and security headers.

It is the outermost layer, so that HEAD, 304 and rejected requests are handled in one place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpuclust.serve.access import Access
from gpuclust.serve.measures import Measures
from gpuclust.serve.problems import problem

API = "/api/v1"
# A browser may use a cached response for one minute and then revalidates it: an export rarely changes under one name.
CACHED = "public, max-age=60"
CACHED_PRIVATE = "private, max-age=60"
FRESH = "no-store"
CHALLENGE: Mapping[str, str] = {"www-authenticate": 'Bearer realm="gpuclust"'}
SAFE = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}


class GuardMiddleware:
    """Applies access rules, a body limit and caching to an application.

    Args:
        version: identifies the content of the export; with path and query it makes the ETag of a GET. None: responses change at any
            time, and have no ETag.
        access: allowed host names and the required token; a CORS preflight request has no token.
        max_body: maximum length of a body in bytes.
        raw: prefixes of paths that reach the routes percent-encoded, so that an id may contain a slash.
        fresh: paths whose responses are never cached.
        open: paths that need no token, because they show nothing of the export.
        measures: counts the requests.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        version: str | None,
        access: Access,
        max_body: int,
        measures: Measures,
        raw: Sequence[str] = (),
        fresh: Sequence[str] = (),
        open: Sequence[str] = (),
    ) -> None:
        self.app, self.version, self.access, self.max_body = app, version, access, max_body
        self.raw, self.fresh = tuple(path.encode() for path in raw), frozenset(fresh)
        self.open, self.measures = frozenset(open), measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, method = perf_counter(), scope["method"]
        headers = Headers(scope=scope)
        head = method == "HEAD"
        scope = {**scope, "method": "GET"} if head else dict(scope)
        raw_path = scope.get("raw_path") or b""
        if raw_path.startswith(self.raw):
            scope["path"] = raw_path.decode("ascii", "replace")
        cached = CACHED_PRIVATE if self.access.token else CACHED
        refusal = self._refusal(scope, headers)
        etag = None if refusal is not None else self._etag(scope)
        reply = _ResponseWriter(send, headers, etag, head=head, cached=cached)
        try:
            if refusal is not None:
                await refusal(scope, receive, reply.send)
            elif reply.is_known():
                await reply.not_modified()
            else:
                await self.app(scope, self._limited(receive, headers), reply.send)
        finally:  # an error that is raised here becomes a 500 outside
            self.measures.observe(_route(scope), method, reply.status or 500, perf_counter() - began)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """The response to a request that is not allowed; None if it is allowed."""
        if not self.access.answers_to(headers.get("host", "")):
            return problem(
                421, "this server answers only requests for its own address; open the address that it printed"
            )
        is_preflight = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        if is_preflight or scope["path"] in self.open or self.access.accepts(headers.get("authorization", "")):
            return None
        return problem(401, "send the server's token as Authorization: Bearer TOKEN", CHALLENGE)

    def _etag(self, scope: Scope) -> str | None:
        """A weak ETag, because a response may be compressed; None if the response depends on more than the export."""
        if self.version is None or scope["method"] != "GET" or scope["path"] in self.fresh:
            return None
        request = b"\0".join(
            (self.version.encode(), scope.get("raw_path") or scope["path"].encode(), scope["query_string"])
        )
        return f'W/"{hashlib.sha256(request).hexdigest()[:32]}"'

    def _limited(self, receive: Receive, headers: Headers) -> Receive:
        """Receive a body; raise 413 as soon as it exceeds the limit."""
        taken = int(length) if (length := headers.get("content-length", "")).isdecimal() else 0
        declared = taken > self.max_body
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message: Message = {"type": "http.request", "body": b""} if declared else await receive()
            taken += len(message.get("body", b""))
            if declared or taken > self.max_body:
                raise HTTPException(413, f"the body is longer than {self.max_body:,} bytes; send fewer rows at a time")
            return message

        return limited


def _route(scope: Scope) -> str | None:
    """The path of the route that answered, with its parameters as names; without the prefix in some versions of FastAPI."""
    path: str | None = getattr(scope.get("route"), "path", None)
    has_prefix = path is None or path.startswith(API) or not scope["path"].startswith(API)
    return path if has_prefix else f"{API}{path}"


class _ResponseWriter:
    """Adds headers to a response; a 200 with an ETag that the client has becomes a 304."""

    def __init__(self, send: Send, headers: Headers, etag: str | None, *, head: bool, cached: str) -> None:
        self._send, self._etag, self._silent, self._cached = send, etag, head, cached
        self.status: int | None = None
        self._tags = [tag.strip() for tag in headers.get("if-none-match", "").split(",")]

    def is_known(self) -> bool:
        """Whether the client has this response cached."""
        return self._etag is not None and self._etag in self._tags

    async def not_modified(self) -> None:
        """Send a 304."""
        await self.send({"type": "http.response.start", "status": 304, "headers": []})
        await self.send({"type": "http.response.body", "body": b""})

    async def send(self, message: Any) -> None:
        """Send a message of the response."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=list(message["headers"]))
            for name, value in SAFE.items():
                headers.setdefault(name, value)
            self.status = status = message["status"]
            if status == 200 and self._etag is not None and "*" in self._tags:
                self.status, self._silent = 304, True
                status = self.status
                del headers["content-length"]
            lasting = status in (200, 304) and self._etag is not None
            if lasting:
                headers["etag"] = self._etag or ""
            headers.setdefault("cache-control", self._cached if lasting else FRESH)
            message = {**message, "status": status, "headers": headers.raw}
        elif self._silent and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)
