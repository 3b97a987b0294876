"""Walks a module's statements, following real objects through them, and notes every use that does not fit."""

from __future__ import annotations

import ast
import types
from collections.abc import Iterator, Sequence

from tests.contract.expressions import Expressions, Names, Report, item_of, join, target_as_load
from tests.contract.values import NOTHING, Declared, Instance, Missing, Thing, Unknown, attribute


class Walker:
    """Follows one module. ``roots`` are the packages that are checked, ``constructs`` those whose classes are made.

    Parameters are known from their annotations, results from annotations, docstrings and ``declared``.
    """

    def __init__(
        self, module: types.ModuleType, roots: Sequence[str], declared: Declared, constructs: Sequence[str] = ()
    ) -> None:
        self.module = module
        self.see = Expressions(module, roots, declared, constructs)

    def walk(self) -> Report:
        """Check the whole module."""
        tree = ast.parse(self.see.file.read_text())
        names: Names = {name: Thing(value) for name, value in vars(self.module).items()}
        # Attributes that methods set on self are known before any other method is read.
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for node in classes:
            self._collect_own(node, names)
        self._body(tree.body, names)
        return self.see.report.without_repeats()

    def _body(self, statements: Sequence[ast.stmt], names: Names) -> None:
        for statement in statements:
            self._statement(statement, names)

    def _statement(self, node: ast.stmt, names: Names) -> None:
        match node:
            case ast.FunctionDef():
                self._function(node, names, None)
            case ast.ClassDef():
                cls = vars(self.module)[node.name]
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef):
                        self._function(inner, names, cls)
                    else:
                        self._statement(inner, dict(names))
            case ast.Assign(targets, value):
                result = self.see.value(value, names)
                for target in targets:
                    self.see.bind(target, result, names)
            case ast.AnnAssign(target, annotation, value):
                if value is not None:
                    self.see.value(value, names)
                self.see.bind(target, self.see.annotated(annotation, names), names)
            case ast.AugAssign(target, _, value):
                self.see.value(target_as_load(target), names)
                self.see.value(value, names)
            case ast.For(target, iterable, body, orelse):
                self.see.bind(target, item_of(self.see.value(iterable, names)), names)
                self._body([*body, *body, *orelse], names)
            case ast.With(items, body):
                for item in items:
                    entered = self.see.value(item.context_expr, names)
                    if item.optional_vars is not None:
                        self.see.bind(item.optional_vars, Unknown(f"entered from {entered}"), names)
                self._body(body, names)
            case ast.Try(body, handlers, orelse, final):
                self._body(body, names)
                for handler in handlers:
                    self._handler(handler, names)
                self._body([*orelse, *final], names)
            case ast.If(test, body, orelse) | ast.While(test, body, orelse):
                self.see.value(test, names)
                before = dict(names)
                self._body(body, names)
                self._body(orelse, before)
                for name, value in before.items():
                    names[name] = join(names.get(name, value), value)
            case ast.Import() | ast.ImportFrom():
                self._import(node, names)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self.see.value(child, names)

    def _function(self, node: ast.FunctionDef, names: Names, owner: type | None) -> None:
        if any("cuda_kernel" in ast.unparse(decorator) for decorator in node.decorator_list):
            return  # the compile check of tests/gpu_kernels types every call of a kernel
        inner = dict(names)
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        for argument in [*every, *filter(None, (arguments.vararg, arguments.kwarg))]:
            inner[argument.arg] = self.see.annotated(argument.annotation, names) if argument.annotation else NOTHING
        is_static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)
        if owner is not None and every and not is_static:
            inner[every[0].arg] = Instance(owner)
        for default in [*arguments.defaults, *filter(None, arguments.kw_defaults)]:
            self.see.value(default, names)
        for decorator in node.decorator_list:
            self.see.value(decorator, names)
        self._body(node.body, inner)
        if owner is None and node.name not in vars(self.module):
            names[node.name] = NOTHING

    def _handler(self, handler: ast.ExceptHandler, names: Names) -> None:
        caught = self.see.value(handler.type, names) if handler.type is not None else NOTHING
        if handler.name is not None:
            is_class = isinstance(caught, Thing) and isinstance(caught.value, type)
            names[handler.name] = Instance(caught.value) if is_class else NOTHING  # type: ignore[union-attr]
        self._body(handler.body, names)

    def _import(self, node: ast.Import | ast.ImportFrom, names: Names) -> None:
        for alias in node.names:
            try:
                if isinstance(node, ast.Import):
                    module = __import__(alias.name, fromlist=["_"] if alias.asname else [])
                    names[alias.asname or alias.name.partition(".")[0]] = Thing(module)
                elif node.module != "__future__":
                    module = __import__(str(node.module), fromlist=[alias.name])
                    found = attribute(Thing(module), alias.name, self.see.declared, {})
                    names[alias.asname or alias.name] = found
                    self.see.note(node, found, f"{node.module}.{alias.name}")
            except (ImportError, Missing) as error:
                self.see.problem(node, str(error))

    def _collect_own(self, node: ast.ClassDef, names: Names) -> None:
        cls = vars(self.module)[node.name]
        self.see.own[cls] = {}
        quiet, self.see.report = self.see.report, Report()
        for inner in node.body:
            if isinstance(inner, ast.FunctionDef):
                self._function(inner, names, cls)
            elif isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
                self.see.own[cls][inner.target.id] = self.see.annotated(inner.annotation, names)
        self.see.report = quiet


def problems_of(ours: Sequence[Report], shared: Sequence[Report] = ()) -> Iterator[str]:
    """Every problem, and everything that could not be followed in modules that are wholly ours to annotate.

    Code that both backends share may say Any: what it does with such values is listed, but is no finding.
    """
    for report in ours:
        for line in report.unresolved:
            yield f"{line} (not resolved: annotate it in the source, or declare it with its reason)"
    for report in (*ours, *shared):
        yield from report.problems
