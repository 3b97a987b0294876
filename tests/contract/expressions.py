"""What the expressions of a module stand for, checked against the real objects they use."""

from __future__ import annotations

import ast
import inspect
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tests.contract.signatures import NoSignature, signature
from tests.contract.values import (
    NOTHING,
    Declared,
    Instance,
    Missing,
    OneOf,
    Thing,
    Unknown,
    Value,
    attribute,
    dotted,
    from_annotation,
    returned,
)

Names = dict[str, Value]


@dataclass
class Report:
    """What was found in one module: problems, what could not be followed, and how much was checked."""

    problems: list[str] = field(default_factory=list)
    unresolved: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)
    constructed: list[str] = field(default_factory=list)

    def without_repeats(self) -> Report:
        """The same, each line once: the bodies of loops are read twice."""
        return Report(*(list(dict.fromkeys(getattr(self, f.name))) for f in fields(self)))


class Expressions:
    """Finds what expressions of one module stand for, and reports what does not fit on the way."""

    def __init__(
        self, module: types.ModuleType, roots: Sequence[str], declared: Declared, constructs: Sequence[str] = ()
    ) -> None:
        self.module = module
        self.roots = frozenset(roots)
        self.constructs = frozenset(constructs)
        self.declared = declared
        self.report = Report()
        self.exemplars: dict[type, Any] = {}
        self.own: dict[type, Names] = {}
        self.file = Path(str(module.__file__))

    def value(self, node: ast.expr, names: Names) -> Value:
        """What an expression stands for; checks everything inside it on the way."""
        match node:
            case ast.Name(name) | ast.Attribute(_, name) if name in self.declared.names:
                return Thing(self.declared.names[name])
            case ast.Name(name):
                return names.get(name) or (Thing(BUILTINS[name]) if name in BUILTINS else NOTHING)
            case ast.Attribute(owner, name):
                return self._attribute(node, self.value(owner, names), name)
            case ast.Call():
                return self._call(node, names)
            case ast.Subscript(owner, index):
                held, by = self.value(owner, names), self.value(index, names)
                return held if isinstance(held, Instance) and isinstance(index, ast.Slice) else item_of(held, by)
            case ast.BinOp(left, _, right):
                return arithmetic(self.value(left, names), self.value(right, names))
            case ast.Compare(left, _, others):
                values = [self.value(left, names), *(self.value(other, names) for other in others)]
                return values[0] if is_array(values[0]) else next(filter(is_array, values), NOTHING)
            case ast.UnaryOp(_, operand):
                return self.value(operand, names)
            case ast.IfExp(test, body, orelse):
                self.value(test, names)
                return join(self.value(body, names), self.value(orelse, names))
            case ast.NamedExpr(target, inner):
                result = self.value(inner, names)
                self.bind(target, result, names)
                return result
            case ast.Tuple(elements) | ast.List(elements) | ast.Set(elements):
                items = [self.value(element, names) for element in elements]
                return Instance(list, items[0] if items and all(i == items[0] for i in items) else NOTHING)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self._comprehension(node, names)
            case ast.Lambda(arguments, body):
                self.value(body, {**names, **{a.arg: NOTHING for a in arguments.args}})
                return NOTHING
            case ast.Constant(constant):
                return Instance(type(constant))
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self.value(child, names)
                return NOTHING

    def _comprehension(self, node: Any, names: Names) -> Value:
        inner = dict(names)
        for loop in node.generators:
            self.bind(loop.target, item_of(self.value(loop.iter, inner)), inner)
            for test in loop.ifs:
                self.value(test, inner)
        if isinstance(node, ast.DictComp):
            self.value(node.key, inner)
            return Instance(dict, self.value(node.value, inner))
        return Instance(list, self.value(node.elt, inner))

    def _attribute(self, node: ast.Attribute, owner: Value, name: str) -> Value:
        if isinstance(owner, Instance) and name in self.own.get(owner.cls, {}):
            return self.own[owner.cls][name]
        if isinstance(owner, Unknown):
            if owner.watched:
                self._unresolved(node, f".{name} of something {owner}")
            return Unknown(owner.why, owner.watched)
        try:
            found = attribute(owner, name, self.declared, self.exemplars)
        except Missing as error:
            if self._is_watched(owner):
                self.problem(node, str(error))
            return NOTHING
        self.note(node, owner, name)
        return found

    def _call(self, node: ast.Call, names: Names) -> Value:
        function = self.value(node.func, names)
        arguments = [self.value(a.value if isinstance(a, ast.Starred) else a, names) for a in node.args]
        for keyword in node.keywords:
            self.value(keyword.value, names)
        if isinstance(function, OneOf):
            function = function.options[0]
        if not isinstance(function, Thing):
            return Unknown(f"called {function}", isinstance(function, Unknown) and function.watched)
        if function.value in KEEPS_ITEMS and arguments:
            return Instance(list, item_of(arguments[0]))
        self._bind_arguments(node, function)
        watched = self._is_checked(function)
        result = returned(function, self.declared, watched=watched)
        if isinstance(function.value, type) and dotted(function).partition(".")[0] in self.constructs:
            self._construct(node, function.value)
        return result

    def _bind_arguments(self, node: ast.Call, function: Thing) -> None:
        watched = self._is_checked(function)
        if not watched and not str(getattr(function.value, "__module__", "")).startswith("gpuclust"):
            return
        try:
            expected = signature(function, self.declared)
        except NoSignature as error:
            if watched:
                self._unresolved(node, str(error))
            return
        positional = [object() for a in node.args if not isinstance(a, ast.Starred)]
        named = {k.arg: object() for k in node.keywords if k.arg is not None}
        starred = len(positional) < len(node.args) or len(named) < len(node.keywords)
        if expected is not None:
            try:
                (expected.bind_partial if starred else expected.bind)(*positional, **named)
            except TypeError as error:
                self.problem(node, f"{dotted(function)}{expected}: {error}")
                return
        if watched:
            self.report.calls.append(f"{self._place(node)} {dotted(function)}")

    def _construct(self, node: ast.Call, cls: type) -> None:
        """Make one for real, with the constructor's own defaults for the keywords that the call gives."""
        expected = signature(Thing(cls), self.declared)
        known = expected.parameters if expected is not None else {}
        named = {k.arg: known[k.arg].default for k in node.keywords if k.arg in known}
        try:
            self.exemplars[cls] = cls(**{k: v for k, v in named.items() if v is not inspect.Parameter.empty})
            self.report.constructed.append(f"{self._place(node)} {cls.__module__}.{cls.__qualname__}")
        except Exception as error:  # whatever a constructor raises is the finding
            self.problem(node, f"{cls.__module__}.{cls.__qualname__} cannot be made: {type(error).__name__}: {error}")

    def annotated(self, annotation: ast.expr, names: Names) -> Value:
        """What an annotation in the module promises."""
        if isinstance(annotation, ast.Name) and self.declared.means(annotation.id, vars(self.module)):
            return Instance(self.declared.aliases[annotation.id])
        known = {name: value.value for name, value in names.items() if isinstance(value, Thing)}
        found = from_annotation(ast.unparse(annotation), known)
        if found is None:
            self._unresolved(annotation, f"the annotation {ast.unparse(annotation)}")
        return found or NOTHING

    def _is_checked(self, thing: Thing) -> bool:
        return dotted(thing).partition(".")[0] in self.roots

    def _is_watched(self, owner: Value) -> bool:
        """Whether a missing attribute is ours to report; mypy reports those of other libraries."""
        return isinstance(owner, OneOf) or root_of(owner) in self.roots | {"gpuclust"}

    def _place(self, node: ast.AST) -> str:
        return f"{self.file.name}:{getattr(node, 'lineno', 0)}"

    def note(self, node: ast.AST, owner: Value, name: str) -> None:
        if root_of(owner) in self.roots:
            self.report.attributes.append(f"{self._place(node)} {owner}.{name}")

    def problem(self, node: ast.AST, text: str) -> None:
        self.report.problems.append(f"{self._place(node)}: {text}")

    def _unresolved(self, node: ast.AST, text: str) -> None:
        self.report.unresolved.append(f"{self._place(node)}: {text}")

    def bind(self, target: ast.expr, value: Value, names: Names) -> None:
        """Give what is assigned to its value."""
        match target:
            case ast.Name(name):
                names[name] = value
            case ast.Tuple(elements) | ast.List(elements):
                for element in elements:
                    self.bind(element, item_of(value), names)
            case ast.Starred(inner):
                self.bind(inner, value, names)
            case ast.Subscript():
                self.value(target_as_load(target), names)
            case ast.Attribute(owner, name):
                held = self.value(owner, names)
                if isinstance(held, Instance) and held.cls in self.own:
                    self.own[held.cls].setdefault(name, value)
                else:
                    self.value(target_as_load(target), names)


BUILTINS: Mapping[str, Any] = vars(__import__("builtins"))
KEEPS_ITEMS: tuple[Callable[..., Any], ...] = (list, tuple, sorted, reversed, set)


def root_of(value: Value) -> str:
    """The package that a value comes from."""
    held = value.value if isinstance(value, Thing) else getattr(value, "cls", None)
    module = held.__name__ if isinstance(held, types.ModuleType) else str(getattr(held, "__module__", ""))
    return module.partition(".")[0].replace("cupy_backends", "cupy")


def is_array(value: Value) -> bool:
    """Whether operators on it give the same kind again."""
    return isinstance(value, Instance) and value.cls.__name__ in {"ndarray", "Series", "DataFrame"}


def arithmetic(left: Value, right: Value) -> Value:
    """What an operator between two values gives."""
    if is_array(left) or is_array(right):
        return left if is_array(left) else right
    unknown = [v for v in (left, right) if isinstance(v, Unknown) and v.watched]
    return unknown[0] if unknown else NOTHING


def item_of(value: Value, by: Value = NOTHING) -> Value:
    """What indexing (``by`` something) or iterating gives."""
    match value:
        case Instance(_, item) if item is not None:
            return item
        case Instance(cls) if cls.__name__ in {"ndarray", "Series"} and by != Instance(str):
            return value
        case Instance(cls) if cls.__name__ == "DataFrame" and isinstance(by, Instance):
            return Instance(sys.modules[root_of(value)].Series) if by.cls is str else value
        case Instance(cls):
            return Unknown(f"item of {cls.__qualname__}", watched=cls.__module__.partition(".")[0] in {"cudf", "cupy"})
        case _:
            return Unknown(f"item of {value}", watched=isinstance(value, Unknown) and value.watched)


def join(one: Value, other: Value) -> Value:
    """What either branch may have left."""
    if one == other or (other == NOTHING and not isinstance(one, Unknown)):
        return one
    known = [v for v in (one, other) if not isinstance(v, Unknown)]
    return OneOf(tuple(dict.fromkeys(known))) if len(known) == 2 else (known[0] if known else one)


def target_as_load(target: ast.expr) -> ast.expr:
    """The expression that reads what an assignment writes."""
    copy = ast.parse(ast.unparse(target), mode="eval").body
    for new, old in zip(ast.walk(copy), ast.walk(target), strict=False):
        ast.copy_location(new, old)
    return copy
