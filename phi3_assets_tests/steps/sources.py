"""The source that a step's function reaches, found by reading it and not by running it.

From the function one goes to every top-level definition of this package that it names, and on from there, through
imports at the top of modules and inside functions. What cannot change what a step leaves does not count: docstrings,
comments, annotations, the text of errors, and lines of the log. Files that a definition names and that lie beside its
module (templates, yaml) count byte for byte, and so does all of a module that is run by its name (`python -m`).
"""

import ast
import hashlib
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import phi3_assets
from phi3_assets.core.step import Step

ROOT = Path(phi3_assets.__file__).parent.parent
PACKAGE = "phi3_assets"
# The table of steps is what the digests are held against, and a change of it is in the identity by itself; errors end a
# step, so that it leaves nothing.
APART = {f"{PACKAGE}.steps", f"{PACKAGE}.core.errors"}
_TELLING = {"log", "note", "progress", "tick"}


@dataclass
class Module:
    """One module's top-level definitions.

    Attributes:
        path: Its file.
        defined: Statements that bind each name.
        imported: For each imported name of this package: module, and name in it ("": the module itself).
        effects: Statements that bind nothing, and run when the module is imported.
    """

    path: Path
    defined: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)
    effects: list[ast.stmt] = field(default_factory=list)


def reached(step: Step) -> dict[str, str]:
    """Digest of what the step's function reaches, by module and data file: 12 hex digits each."""
    parts: dict[str, set[str]] = {}
    for name, definition in definitions(step):
        module = load(name)
        for statement in _statements(module, definition):
            parts.setdefault(name, set()).add(_text(statement))
            for file in _data_files(statement, module):
                parts[file.relative_to(ROOT).as_posix()] = {file.read_text(encoding="utf-8")}
    return {name: _digest(texts) for name, texts in sorted(parts.items())}


def definitions(step: Step) -> set[tuple[str, str]]:
    """Module and name of each definition that the step's function reaches; see `_statements` for two other names."""
    module, _, function = step.function.partition(":")
    seen: set[tuple[str, str]] = set()
    waiting = [(module, function)]
    while waiting:
        name, definition = place = waiting.pop()
        if place in seen or name in APART:
            continue
        seen.add(place)
        waiting.append((name, ""))
        for statement in _statements(load(name), definition):
            waiting += _named(statement, name, load(name))
    return seen


def _statements(module: Module, name: str) -> list[ast.stmt]:
    """Those that bind `name`; "": those that run at import; "*": all."""
    if name == "*":
        return [*module.effects, *(one for bound in module.defined.values() for one in bound)]
    return module.defined.get(name, []) if name else module.effects


@cache
def load(name: str) -> Module:
    """Parse a module of the package.

    Raises:
        FileNotFoundError: There is none of this name.
    """
    path = _path(name)
    if path is None:
        raise FileNotFoundError(name)
    module = Module(path)
    for statement in _parse(path.read_text(encoding="utf-8")):
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test):
            continue
        if isinstance(statement, ast.Import | ast.ImportFrom):
            module.imported.update(_bindings(statement))
            continue
        bound = _bound(statement)
        for one in bound:
            module.defined.setdefault(one, []).append(statement)
        if not bound:
            module.effects.append(statement)
    return module


def _path(name: str) -> Path | None:
    base = ROOT.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _bindings(statement: ast.Import | ast.ImportFrom) -> dict[str, tuple[str, str]]:
    """Names of this package that an import binds."""
    found = {}
    if isinstance(statement, ast.ImportFrom) and (statement.module or "").split(".")[0] == PACKAGE:
        assert statement.module
        for alias in statement.names:
            inner = f"{statement.module}.{alias.name}"
            found[alias.asname or alias.name] = (inner, "") if _path(inner) else (statement.module, alias.name)
    elif isinstance(statement, ast.Import):
        for alias in statement.names:
            assert not alias.name.startswith(PACKAGE), "import names from this package, so that they can be followed"
    return found


def _bound(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        return {statement.name}
    targets: list[ast.AST] = [statement]
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):  # what a comprehension binds stays in it
        targets = list(statement.targets) if isinstance(statement, ast.Assign) else [statement.target]
    nodes = (node for target in targets for node in ast.walk(target))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _named(statement: ast.stmt, name: str, module: Module) -> list[tuple[str, str]]:
    """Definitions that a statement names: of its own module, and of others."""
    nodes = list(ast.walk(statement))
    bindings = dict(module.imported)
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            bindings |= _bindings(node)
    found = []
    modules_used = set()
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            target = bindings.get(node.value.id)
            if target and not target[1]:
                found.append((target[0], node.attr))
                modules_used.add(id(node.value))
    for node in nodes:
        if isinstance(node, ast.Name) and id(node) not in modules_used:
            if node.id in bindings:
                target = bindings[node.id]
                found.append(target if target[1] else (target[0], "*"))
            elif node.id in module.defined:
                found.append((name, node.id))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _is_module(node.value):
            found.append((node.value, "*"))
    return found


def _is_module(text: str) -> bool:
    return re.fullmatch(rf"{PACKAGE}(\.\w+)+", text) is not None and (ROOT / f"{text.replace('.', '/')}.py").is_file()


def _data_files(statement: ast.stmt, module: Module) -> set[Path]:
    """Files that a statement names, beside its module or one that it names too, and those that they name in turn."""
    nodes = list(ast.walk(statement))
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and type(node.value) is str]
    imported = [module.imported.get(node.id) for node in nodes if isinstance(node, ast.Name)]
    paths = [_path(target[0]) for target in imported if target and not target[1]]
    folders = {module.path.parent, *(path.parent for path in paths if path)}
    found: set[Path] = set()
    waiting = [folder / text for text in texts if re.fullmatch(r"[\w.-]+\.\w+", text) for folder in folders]
    while waiting:
        path = waiting.pop()
        if path.is_file() and path not in found:
            found.add(path)
            if path.suffix == ".j2":
                waiting += [path.with_name(text) for text in re.findall(r"[\"']([\w.-]+\.j2)[\"']", path.read_text())]
    return found


@cache
def _parse(text: str) -> list[ast.stmt]:
    """A module's top-level statements, without what cannot change a result."""
    return [_Bare().visit(statement) for statement in ast.parse(text).body if not _is_docstring(statement)]


@cache
def _text(statement: ast.stmt) -> str:
    return ast.dump(statement, annotate_fields=False)


def _digest(texts: set[str]) -> str:
    return hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()[:12]


class _Bare(ast.NodeTransformer):
    """Takes away what cannot change a result."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._body(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._body(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc.args, node.exc.keywords = [], []
        node.cause = None
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        call = node.value
        name = call.func if isinstance(call, ast.Call) else None
        if getattr(name, "attr", getattr(name, "id", "")) in _TELLING:
            return ast.Pass()
        return self.generic_visit(node)

    def _body(self, node: ast.FunctionDef | ast.ClassDef) -> ast.AST:
        node.body = [one for one in node.body if not _is_docstring(one)] or [ast.Pass()]
        return self.generic_visit(node)
