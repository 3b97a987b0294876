"""Errors as ``application/problem+json`` (RFC 9457), and the JSON of all responses."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from gpuclust.errors import GpuclustError
from gpuclust.model.records import plain
from gpuclust.serve.records import NotFound

MEDIA_TYPE = "application/problem+json"
MAX_ECHO_LENGTH = 100  # characters of the request that an error repeats


class Json(JSONResponse):
    """Records, or what they are made of, as JSON that is valid for any export: NaN becomes null, a lone surrogate the replacement
    character."""

    def render(self, content: Any) -> bytes:
        """The body in UTF-8."""
        try:
            return _dumps(content).encode("utf-8")
        except (ValueError, UnicodeEncodeError):  # a NaN, or text that cannot be encoded
            return _dumps(plain(content)).encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode("utf-8")


def _dumps(content: Any) -> str:
    return json.dumps(content, default=vars, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class ProblemJson(Json):
    """A problem document."""

    media_type = MEDIA_TYPE


class Problem(Exception):
    """A request that fails with an HTTP status, a sentence with the reason, and further members of the document."""

    def __init__(self, status: int, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status, self.detail, self.more = status, detail, more


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> ProblemJson:
    """A response with the ``type`` about:blank, whose ``title`` is the phrase of the status (RFC 9457, 4.2.1)."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return ProblemJson(body | {k: v for k, v in more.items() if v}, status, headers)


def near(wrong: str, known: Sequence[str], count: int = 3) -> list[str]:
    """Known names that are similar to a mistyped one, best first."""
    return get_close_matches(wrong[:MAX_ECHO_LENGTH], known, count, 0.5)


def install(app: FastAPI) -> None:
    """Convert every kind of error to a problem document."""
    handlers: dict[type[Exception], Callable[[Request, Any], Response]] = {
        Problem: lambda _, e: problem(e.status, e.detail, **e.more),
        NotFound: lambda _, e: problem(404, str(e), suggestions=list(e.suggestions)),
        GpuclustError: lambda _, e: problem(422, str(e)),
        RequestValidationError: _validation_error,
        HTTPException: _http_error,
        Exception: _internal_error,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, _awaited(handler))


def _awaited(handler: Callable[[Request, Any], Response]) -> Any:
    async def answer(request: Request, error: Exception) -> Response:
        return handler(request, error)

    return answer


def _validation_error(request: Request, error: RequestValidationError) -> Response:
    """Report where and why each value is invalid. Values are not repeated; the name of an unknown parameter is."""
    errors, sentences = [], []
    for one in error.errors():
        if one["type"] == "json_invalid":
            return problem(400, f"the body is not JSON: {one['ctx']['error']} at character {one['loc'][-1]}")
        if one["loc"] == ("body",) and isinstance(one.get("input"), bytes):
            return problem(415, "the body is not declared as JSON; send Content-Type: application/json")
        path = [str(part)[:MAX_ECHO_LENGTH] for part in one["loc"]]
        message = one["msg"].removeprefix("Value error, ")
        if one["type"] == "extra_forbidden":
            message = _unknown(request, path)
        errors.append({"where": ".".join(path), "message": message})
        sentences.append(f"{'.'.join(path[1:]) or path[0]}: {message}")
    detail = "; ".join(sentences[:3]) + (f"; and {len(sentences) - 3} more" if len(sentences) > 3 else "")
    return problem(422, detail, errors=errors[:20])


def _unknown(request: Request, path: list[str]) -> str:
    """A message for an unknown name, with similar known names."""
    known: list[str] = []
    if path[0] == "query" and (route := request.scope.get("route")) is not None:
        known = [name for q in route.dependant.query_params for name in _fields(q)]
    meant = near(path[-1], known, 1)
    return f"there is no such name{f'; did you mean {meant[0]}?' if meant else ''}" + (
        f" (there are {', '.join(known)})" if known else ""
    )


def _fields(parameter: Any) -> list[str]:
    """The names of the fields of a parameter model, or the name of the parameter."""
    members = getattr(parameter.field_info.annotation, "model_fields", None)
    return [parameter.alias] if members is None else [field.alias or name for name, field in members.items()]


def _http_error(request: Request, error: HTTPException) -> Response:
    """Convert errors of the framework: an unknown path, a method that is not allowed, a body that is not JSON."""
    detail = str(error.detail)
    if error.status_code == 404:
        detail = "there is nothing at this path; /api/v1/openapi.json lists the paths"
    elif error.status_code == 405:
        detail = (
            f"{request.method[:MAX_ECHO_LENGTH]} is not allowed here; use {(error.headers or {}).get('Allow', 'GET')}"
        )
    elif error.status_code == 400:
        detail = "the body is not JSON that can be read; send application/json in UTF-8"
    return problem(error.status_code, detail, error.headers)


def _internal_error(request: Request, error: Exception) -> Response:
    """Log an internal error; the response does not show it."""
    logging.getLogger("gpuclust.serve").error("a request failed", exc_info=error)
    return problem(500, "internal server error; the log of the server has the cause")
