"""The recorded signatures of the real libraries: what the stand-ins accept."""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any


@cache
def recorded() -> dict[str, str]:
    """Each name of `signatures.txt` with its signature in words; empty for a property or a constant."""
    lines = Path(__file__).with_name("signatures.txt").read_text().splitlines()
    return {name: mark + rest for name, mark, rest in (line.partition("(") for line in lines)}


@cache
def _signature(name: str) -> inspect.Signature:
    namespace: dict[str, Any] = {}
    exec(f"def signature{recorded()[name].replace('Ellipsis', '...')}: ...", namespace)
    return inspect.signature(namespace["signature"])


def bind(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> inspect.BoundArguments:
    """The arguments by the parameters of the real function. Raises TypeError where it does not take them."""
    try:
        return _signature(name).bind(*arguments, **keywords)
    except TypeError as error:
        raise TypeError(f"{name}() {error}") from None


def known(name: str) -> bool:
    """Whether the real library has this name."""
    return name in recorded()


def callable_name(name: str) -> bool:
    """Whether the name is a function or a class there."""
    return bool(recorded().get(name))


class StandIn(ModuleType):
    """A module in the role of a real one: a name that the real one lacks is an AttributeError, one that it has but the stand-in lacks a
    NotImplementedError."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if known(f"{self.__name__}.{name}"):
            raise NotImplementedError(f"{self.__name__}.{name} has no stand-in yet; add it to tests/gpu_fakes")
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
