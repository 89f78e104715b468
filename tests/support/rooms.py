"""What a checkout's files and imports look like, as lists of what is wrong with them."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from pathlib import Path

PRODUCT = ("fedfuse_ray", "actors")


def sources(root: Path, *folders: str) -> list[Path]:
    """Return the Python files below some folders."""
    return sorted(path for folder in folders for path in (root / folder).rglob("*.py"))


def crowded(root: Path, folders: Collection[str], most: int) -> list[str]:
    """Return the folders with more Python files than `most`, `__init__.py` not counted."""
    counts: dict[Path, int] = {}
    for path in sources(root, *folders):
        counts[path.parent] = counts.get(path.parent, 0) + (path.name != "__init__.py")
    return [f"{p.relative_to(root)}: {n} files" for p, n in counts.items() if n > most]


def too_long(root: Path, most: int) -> list[str]:
    """Return the product's files with more lines than `most`."""
    lines = {path: len(path.read_text().splitlines()) for path in sources(root, *PRODUCT)}
    return [f"{p.relative_to(root)}: {n} lines" for p, n in lines.items() if n > most]


def too_many_imports(root: Path, most: int) -> list[str]:
    """Return the product's modules that import more than `most` others of the product."""
    modules = {_name(root, path): path for path in sources(root, *PRODUCT)}
    counts = {name: len(_imported(path, modules) - {name}) for name, path in modules.items()}
    return [f"{name}: {n} modules" for name, n in counts.items() if n > most]


def rooms_without_a_sentence(root: Path) -> list[str]:
    """Return the packages whose `__init__.py` is missing, or opens with no sentence on one line."""
    folders = {path.parent for path in sources(root, *PRODUCT)}
    return [str(f.relative_to(root)) for f in sorted(folders) if not _says_one_sentence(f)]


def users_of_any(root: Path, but: Collection[str]) -> list[str]:
    """Return the product's modules that import `typing.Any` and are not among some."""
    return _importers(root, {"typing.Any"}, but)


def users_of_ray(root: Path, but: Collection[str]) -> list[str]:
    """Return the product's modules that import Ray and are in none of some packages."""
    return _importers(root, {"ray"}, but)


def imports_from_tests(root: Path) -> list[str]:
    """Return the imports from `test_*` modules."""
    return [
        f"{path.relative_to(root)}: {name}"
        for path in sources(root, "tests")
        for name in _named(ast.parse(path.read_text()))
        if any(part.startswith("test_") for part in name.split(".")[:-1])
    ]


def private_patches(root: Path) -> list[str]:
    """Return where tests replace what is private to the product: a name that begins with `_`."""
    return [
        f"{path.relative_to(root)}:{node.lineno}: {name}"
        for path in sources(root, "tests")
        for node, name in _patched(ast.parse(path.read_text()))
        if _is_private(name)
    ]


def _name(root: Path, path: Path) -> str:
    dotted = ".".join(path.relative_to(root).with_suffix("").parts)
    return dotted.removesuffix(".__init__")


def _named(tree: ast.AST) -> Iterator[str]:
    """Yield every module or `module.name` that is imported, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _imported(path: Path, modules: Collection[str]) -> set[str]:
    names = _named(ast.parse(path.read_text()))
    found = {name if name in modules else name.rpartition(".")[0] for name in names}
    return found & set(modules)


def _importers(root: Path, what: set[str], but: Collection[str]) -> list[str]:
    found = []
    for path in sources(root, *PRODUCT):
        name = _name(root, path)
        named = [*_named(ast.parse(path.read_text()))]
        if any(f"{n}.".startswith(f"{w}.") for n in named for w in what) and not any(
            f"{name}.".startswith(f"{room}.") for room in but
        ):
            found.append(name)
    return found


def _says_one_sentence(folder: Path) -> bool:
    path = folder / "__init__.py"
    said = ast.get_docstring(ast.parse(path.read_text())) if path.is_file() else None
    return said is not None and said.splitlines()[0].endswith(".")


def _patched(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        called = function.attr if isinstance(function, ast.Attribute) else ""
        called = function.id if isinstance(function, ast.Name) else called
        if called in ("setattr", "delattr", "patch", "object"):
            texts = [a.value for a in node.args[:2] if isinstance(a, ast.Constant)]
            yield from ((node, text) for text in texts if isinstance(text, str))


def _is_private(name: str) -> bool:
    last = name.rpartition(".")[2]
    return last.startswith("_") and not last.startswith("__")
