"""What an expression stands for: a real object, an instance of a real class, one of several, or unknown.

Attributes and signatures are read from the real libraries. Compiled code hides some of both, so a signature may also
come from a docstring's first line (Cython's embedsignature) and an attribute from the source beside the binary.
"""

from __future__ import annotations

import builtins
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Thing:
    """A real object: a module, a class, a function, a constant. ``owner`` is the class of a method read from it."""

    value: Any
    owner: type | None = None

    def __str__(self) -> str:
        module = getattr(self.value, "__module__", None)
        name = getattr(self.value, "__qualname__", getattr(self.value, "__name__", repr(self.value)))
        return f"{module}.{name}" if isinstance(module, str) else str(name)


@dataclass(frozen=True)
class Instance:
    """An instance of a real class; ``item`` is what indexing or iterating gives, where that is known."""

    cls: type
    item: Value | None = None

    def __str__(self) -> str:
        return f"{self.cls.__module__}.{self.cls.__qualname__} instance"


@dataclass(frozen=True)
class OneOf:
    """One of several, all of which must have what is asked of it."""

    options: tuple[Value, ...]

    def __str__(self) -> str:
        return " | ".join(map(str, self.options))


@dataclass(frozen=True)
class Unknown:
    """Nothing is known. ``watched``: it comes from a checked library, so using it blindly is reported."""

    why: str
    watched: bool = False

    def __str__(self) -> str:
        return f"unknown ({self.why})"


Value = Thing | Instance | OneOf | Unknown
NOTHING = Unknown("not from a checked library")
ANYTHING = Unknown("annotated Any", watched=True)


class Missing(Exception):
    """The real object has no such attribute."""


@dataclass(frozen=True)
class Declared:
    """What no library says of itself, each entry with its reason beside it in the table that is passed in.

    ``returns`` maps a dotted name, or a class or package followed by ``.*``, to the class that a call or a property gives.
    ``unsigned`` names callables that tell their parameters nowhere. ``names`` says what a name stands for wherever it
    is read, ``aliases`` which class an annotation stands for. ``used`` collects what was needed of the first two, so
    that an entry that is no longer needed is reported.
    """

    returns: Mapping[str, type] = field(default_factory=dict)
    unsigned: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, type] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def returned(self, name: str) -> type | None:
        """The class declared for a dotted name, for the class that it is in, or for its package."""
        for entry in (name, f"{name.rpartition('.')[0]}.*"):
            if entry in self.returns:
                self.used.add(entry)
                return self.returns[entry]
        return None

    def means(self, annotation: Any, where: Mapping[str, Any]) -> bool:
        """Whether an annotation is one of the aliases, which the module itself says is anything."""
        return annotation in self.aliases and where.get(annotation) is Any

    def is_unsigned(self, name: str) -> bool:
        """Whether the callable of that dotted name is known to tell its parameters nowhere."""
        self.used.update({name} & set(self.unsigned))
        return name in self.unsigned


def dotted(thing: Thing) -> str:
    """The name that a table entry uses: ``cupy.ndarray.get`` for a method, ``cupy.asarray`` for a function."""
    name = str(getattr(thing.value, "__name__", type(thing.value).__name__))
    if thing.owner is not None:
        return f"{_public(thing.owner.__module__)}.{thing.owner.__qualname__}.{name}"
    module = getattr(thing.value, "__module__", None) or type(thing.value).__module__
    return f"{_public(str(module))}.{name}"


def _public(module: str) -> str:
    # cupy._core.core and cupy_backends.cuda are where cupy's own names live.
    root = module.partition(".")[0]
    return "cupy" if root in {"cupy", "cupy_backends"} else root


def from_annotation(annotation: Any, where: Mapping[str, Any], owner: type | None = None) -> Value | None:
    """The value that an annotation promises, or None where it says nothing that can be resolved."""
    if isinstance(annotation, str):
        text = annotation.strip().strip("'\"")
        if text == "Self" or (owner is not None and text == owner.__name__):
            return Instance(owner) if owner is not None else None
        try:
            annotation = eval(text, {**vars(builtins), **where})
        except Exception:  # names that exist for type checkers only
            return None
    if annotation is typing.Self:
        return Instance(owner) if owner is not None else None
    if annotation is None or annotation is type(None):
        return NOTHING
    if annotation is Any:
        return ANYTHING
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        options = tuple(
            value for a in arguments if a is not type(None) and (value := from_annotation(a, where, owner)) is not None
        )
        return options[0] if len(options) == 1 else OneOf(options)
    if isinstance(origin, type):
        kept = [a for a in arguments if a is not ...]
        alike = bool(kept) and (issubclass(origin, Mapping) or all(a == kept[0] for a in kept))
        item = from_annotation(kept[-1], where, owner) if alike and issubclass(origin, _CONTAINERS) else None
        return Instance(origin, item)
    return Instance(annotation) if isinstance(annotation, type) else None


_CONTAINERS = (Iterable, Mapping)


def attribute(value: Value, name: str, declared: Declared, exemplars: Mapping[type, Any]) -> Value:
    """What ``value.name`` stands for. Raises Missing where the real object has none."""
    match value:
        case OneOf(options):
            return OneOf(tuple(attribute(option, name, declared, exemplars) for option in options))
        case Thing(real):
            return _attribute_of_object(real, name)
        case Instance(cls):
            return _attribute_of_instance(cls, name, declared, exemplars)
        case Unknown(_, watched):
            return Unknown(f"attribute of something {value}", watched)


def _attribute_of_object(real: Any, name: str) -> Value:
    if isinstance(real, types.ModuleType) and not hasattr(real, name):
        try:
            return Thing(__import__(f"{real.__name__}.{name}", fromlist=["_"]))
        except ImportError:
            pass
    if not hasattr(real, name):
        raise Missing(f"{Thing(real)} has no attribute {name!r}")
    found = getattr(real, name)
    return Thing(found, owner=real if isinstance(real, type) and callable(found) else None)


def _attribute_of_instance(cls: type, name: str, declared: Declared, exemplars: Mapping[type, Any]) -> Value:
    promised = declared.returned(f"{_public(cls.__module__)}.{cls.__qualname__}.{name}")
    static = inspect.getattr_static(cls, name, None)
    if static is not None and callable(getattr(cls, name, None)) and not isinstance(static, property):
        return Thing(getattr(cls, name), owner=cls)
    known = static is not None or name in _fields(cls) or hasattr(exemplars.get(cls), name)
    if not known and not any(name in assigned(base) for base in cls.__mro__):
        raise Missing(f"{Instance(cls)} has no attribute {name!r}")
    if promised is not None:
        return Instance(promised)
    if isinstance(static, property) and static.fget is not None:
        return _promised(static.fget, cls, declared) or Unknown(f"property {name} of {cls.__qualname__}", watched=True)
    if name in _fields(cls):
        annotation, base = _fields(cls)[name]
        where = vars(sys.modules[base.__module__])
        if declared.means(annotation, where):
            return Instance(declared.aliases[annotation])
        return from_annotation(annotation, where, cls) or NOTHING
    by_descriptor = declared.returned(f"{type(static).__module__}.{type(static).__name__}") if static else None
    if by_descriptor is not None:
        return Instance(by_descriptor)
    return Unknown(f"attribute {name} of {cls.__qualname__}", watched=True)


def _fields(cls: type) -> dict[str, tuple[Any, type]]:
    found: dict[str, tuple[Any, type]] = {}
    for base in reversed(cls.__mro__):
        for name, annotation in inspect.get_annotations(base).items():
            found[name] = (annotation, base)
    return found


@cache
def assigned(cls: type) -> frozenset[str]:
    """The names that a class's own source assigns on ``self``; from the .pyx beside the binary for compiled code."""
    text = _class_source(cls)
    return frozenset(re.findall(r"\bself\.(\w+)(?:\s*:[^=\n]+)?\s*(?:,[^=\n]*)?=(?!=)", text))


def _class_source(cls: type) -> str:
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    source = Path(file).with_name(Path(file).name.partition(".")[0] + ".pyx") if file else None
    if source is None or not source.is_file():
        return ""
    body = re.search(
        rf"^(?:cdef )?class {cls.__name__}\b.*?(?=^\S(?<![)#]))", source.read_text() + "\nend", re.S | re.M
    )
    return body.group(0) if body else ""


def _promised(function: Any, owner: type | None, declared: Declared) -> Value | None:
    annotations = getattr(function, "__annotations__", {})
    if "return" not in annotations:
        return None
    where = vars(sys.modules[function.__module__]) if function.__module__ in sys.modules else {}
    if declared.means(annotations["return"], where):
        return Instance(declared.aliases[annotations["return"]])
    return from_annotation(annotations["return"], where, owner)


def returned(thing: Thing, declared: Declared, *, watched: bool) -> Value:
    """What calling the real object gives."""
    real = thing.value
    if isinstance(real, type):
        return Instance(real)
    promised = _promised(real, thing.owner, declared)
    if promised is not None:
        return promised
    if thing.owner is not None and "_ndarray_base" in (real.__doc__ or "").partition("\n")[0].partition("->")[2]:
        return Instance(thing.owner)
    cls = declared.returned(dotted(thing))
    return Instance(cls) if cls is not None else Unknown(f"returned by {dotted(thing)}", watched)
