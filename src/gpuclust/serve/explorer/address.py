"""Widgets whose values are in the address of the page, so that a link or a bookmark opens the same view.

    st.toggle("Only in its cluster", **flag("within"))
    st.selectbox("Colour", colors, **choice("color", colors, colors[0]))

The address decides: its query parameters set the widgets before they are drawn, and a widget that changes writes its query
parameter, or removes it at the default. This also makes the Back button of the browser undo a change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import streamlit as st

T = TypeVar("T")


def text(name: str) -> dict[str, Any]:
    """Keyword arguments of a text input."""
    return _one(name, "", str, str)


def flag(name: str) -> dict[str, Any]:
    """Keyword arguments of a toggle that is off by default."""
    return _one(name, False, lambda written: written == "yes", lambda _: "yes")


def number(name: str, low: float, high: float, default: float) -> dict[str, Any]:
    """Keyword arguments of a number input or a slider from ``low`` to ``high``: all int or all float."""
    kind = type(default)

    def read(written: str) -> float:
        value = kind(written)
        if value != value:
            raise ValueError("not a number")
        return min(max(value, kind(low)), kind(high))

    return _one(name, default, read, lambda value: f"{value:.6g}" if kind is float else str(value))


def choice(name: str, options: Sequence[T], default: T, *, spelling: Callable[[T], str] = str) -> dict[str, Any]:
    """Keyword arguments of a widget with one of some options; ``spelling`` is an option in the address."""
    known = {spelling(option): option for option in options}
    return _one(name, default, known.__getitem__, spelling)


def choices(
    name: str,
    options: Sequence[T],
    default: Sequence[T] = (),
    *,
    spelling: Callable[[T], str] = str,
    most: int | None = None,
) -> dict[str, Any]:
    """Keyword arguments of a widget with several of some options, at most ``most``: a query parameter for each, an empty one for
    none."""
    known = {spelling(option): option for option in options}
    key, written, standard = _key(name), st.query_params.get_all(name), list(default)
    chosen = [known[each] for each in dict.fromkeys(written) if each in known][:most]
    _set(key, chosen if written else standard)

    def write() -> None:
        chosen = st.session_state[key]
        _write(name, None if chosen == standard else [spelling(option) for option in chosen] or "")

    found: dict[str, Any] = {"key": key, "on_change": write}
    return found if most is None else found | {"max_selections": most}


def _one(name: str, default: T, read: Callable[[str], T], spelling: Callable[[T], str]) -> dict[str, Any]:
    key, written = _key(name), st.query_params.get(name)
    try:
        value = default if written is None else read(written)
    except (KeyError, ValueError, OverflowError):
        value = default  # an address that somebody changed by hand
    _set(key, value)

    def write() -> None:
        chosen = st.session_state[key]
        _write(name, None if chosen is None or chosen == default else spelling(chosen))

    return {"key": key, "on_change": write}


def current(name: str) -> Any:
    """The value of the widget of a query parameter; None before it is drawn."""
    return st.session_state.get(_key(name))


def _key(name: str) -> str:
    """The key of the widget of a query parameter."""
    return f"address-{name}"


def _set(key: str, value: object) -> None:
    if key not in st.session_state or st.session_state[key] != value:
        st.session_state[key] = value


def _write(name: str, value: str | list[str] | None) -> None:
    if value is not None:
        st.query_params[name] = value
    elif name in st.query_params:
        del st.query_params[name]
