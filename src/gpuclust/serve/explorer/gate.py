"""ASGI middleware of the explorer: allowed host names, origin checks and the token, for pages, files and WebSockets.

A request to ``/?token=TOKEN`` sets a cookie that scripts cannot read and other sites cannot send.
"""

from __future__ import annotations

import hashlib
import hmac
from html import escape
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpuclust.serve.access import Access

PARAMETER = "token"
SAFE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "frame-ancestors 'self'",
}
PLAIN_PAGE = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
}
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>gpuclust</title>{head}<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 32rem; margin: 15vh auto; padding: 0 1rem }}
input, button {{ font: inherit; padding: .4rem .6rem }}</style><h1>gpuclust</h1>{body}</html>"""
FORM = """<p>{text}</p><form><label>Token <input name="token" type="password" autocomplete="off" autofocus required></label>
<button>Open</button></form>"""


class Gate:
    """Allows only requests to allowed host names, from its own pages, and with the token."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access
        digest = hashlib.sha256(b"gpuclust explorer " + access.token.encode()).hexdigest()
        # The ports of a host share cookies, so the name of the cookie depends on the token.
        self.cookie, self.pass_value = f"gpuclust-{digest[:8]}", digest[8:]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request or a WebSocket handshake."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is None:
            await self.app(_same_origin(scope, headers), receive, _safely(send))
        elif scope["type"] == "websocket":  # closing before accepting makes the handshake fail with 403
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, _safely(send))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """The response to a request that is not allowed; None if the application handles the request."""
        host = headers.get("host", "")
        if not self.access.answers_to(host):
            return _page(
                421, "<p>This server answers only requests for its own address. Open the address that it printed.</p>"
            )
        origin = headers.get("origin")
        if origin is not None and not self.access.is_own_origin(origin, host):
            return _page(403, "<p>This server does not answer requests from pages of other sites.</p>")
        if not self.access.token or self._is_authorised(headers):
            return None
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if PARAMETER not in query or scope["type"] == "websocket":
            return _page(401, FORM.format(text="This explorer requires a token."), CHALLENGE)
        if not self.access.is_token(query.pop(PARAMETER)):
            return _page(401, FORM.format(text="This token is not valid."), CHALLENGE)
        return self._set_cookie(scope, query)

    def _is_authorised(self, headers: Headers) -> bool:
        if "authorization" in headers and self.access.accepts(headers["authorization"]):
            return True
        sent = cookie_parser(headers.get("cookie", "")).get(self.cookie, "")
        return hmac.compare_digest(sent.encode("utf-8", "replace"), self.pass_value.encode())

    def _set_cookie(self, scope: Scope, query: dict[str, str]) -> Response:
        """Set the cookie and open the page without the token in its address.

        This is a page, not a redirect: after a link on another site a browser would not send a strict cookie to a redirect.
        """
        rest = f"?{urlencode(query)}" if query else ""
        there = escape(f"/{quote(scope['path'].lstrip('/'))}{rest}")
        head = f'<meta http-equiv="refresh" content="0;url={there}">'
        response = HTMLResponse(PAGE.format(head=head, body=f'<p><a href="{there}">Open</a></p>'), 200, PLAIN_PAGE)
        secure = scope["scheme"] == "https" or Headers(scope=scope).get("x-forwarded-proto") == "https"
        response.set_cookie(self.cookie, self.pass_value, httponly=True, samesite="strict", secure=secure)
        return response


CHALLENGE = {"www-authenticate": 'Bearer realm="gpuclust"'}


def _page(status: int, body: str, headers: dict[str, str] | None = None) -> Response:
    return HTMLResponse(PAGE.format(head="", body=body), status, PLAIN_PAGE | (headers or {}))


def _same_origin(scope: Scope, headers: Headers) -> Scope:
    """Replace an allowed origin by the own origin. Streamlit would otherwise look up the addresses of this machine, also on
    the internet, to check the origin."""
    if "origin" not in headers:
        return scope
    own = f"http://{headers.get('host', '')}".encode("latin-1")
    return {**scope, "headers": [(k, own if k == b"origin" else v) for k, v in scope["headers"]]}


def _safely(send: Send) -> Send:
    async def safe(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=list(message["headers"]))
            for name, value in SAFE.items():
                headers.setdefault(name, value)
            message = {**message, "headers": headers.raw}
        await send(message)

    return safe
