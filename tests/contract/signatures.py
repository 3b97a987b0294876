"""How real objects are called: by inspection, or by the first line of a compiled object's docstring."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable
from typing import Any

from tests.contract.values import Declared, Thing, dotted


class NoSignature(Exception):
    """Nothing says how the real object is called."""


def signature(thing: Thing, declared: Declared) -> inspect.Signature | None:
    """How the real object is called, without ``self``; None where the table says that nothing tells.

    Raises NoSignature where neither the object, nor its docstring, nor the table says.
    """
    real = thing.value
    try:
        found = inspect.signature(_unwrapped(real))
    except (ValueError, TypeError):
        found = _from_docstring(real)
    if found is None:
        if declared.is_unsigned(dotted(thing)):
            return None
        raise NoSignature(f"{dotted(thing)} tells its parameters nowhere")
    parameters = list(found.parameters.values())
    # A function read from a class still has self; a bound or static one has not.
    if thing.owner is not None and parameters and parameters[0].name == "self":
        parameters = parameters[1:]
    return found.replace(parameters=parameters)


def _unwrapped(real: Any) -> Callable[..., Any]:
    # cuML's copies of scikit-learn's estimators hide __init__ behind (*args, **kwargs), keeping the real one in a cell.
    init = real.__dict__.get("__init__") if isinstance(real, type) else None
    if init is not None and "orig_init" in getattr(init, "__code__", _NO_CODE).co_freevars:
        original = init.__closure__[init.__code__.co_freevars.index("orig_init")].cell_contents
        return types.MethodType(original, object())
    return real


_NO_CODE = (lambda: None).__code__


def _from_docstring(real: Any) -> inspect.Signature | None:
    """The signature in the first line of a docstring: ``name(int device, stream=None) -> T``."""
    first = next((line for line in (real.__doc__ or "").strip().splitlines() if "(" in line), "")
    match = re.match(r"^[\w.]+\((.*)\)(?:\s*->\s*.*)?\s*$", first)
    if not match:
        return None
    parameters = [_without_c_type(p) for p in _split(match.group(1).replace("\\*", "*"))]
    namespace: dict[str, Any] = {}
    try:
        exec(f"def signature({', '.join(parameters)}): ...", namespace)
    except SyntaxError:
        return None
    found: inspect.Signature = inspect.signature(namespace["signature"])
    return found


def _without_c_type(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    name = name.split(":")[0].strip()
    name = name.split()[-1] if name.split() else name
    return f"{name}=None" if equals else name


def _split(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [p.strip() for p in [*parts, text[start:]] if p.strip()]
