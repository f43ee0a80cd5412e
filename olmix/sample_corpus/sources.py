"""Text from installed packages: Python code, C++ headers, docstring prose and `>>>` sessions.

Packages are located, never imported. A Python file gives its code without comments and docstrings to one
domain, the prose of its docstrings to another and the sessions in them to a third, so the three do not
overlap. Files are taken in an order drawn from a seed named after the package, and only as many are
parsed as a domain needs.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import io
import re
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

from olmix.core.seeds import generator
from olmix.errors import DataError
from olmix.sample_corpus.documents import LONGEST, SHORTEST, evenly, pieces, spread

PACKAGES = ("networkx", "numpy", "polars", "sympy", "torch")
# Tests and vendored copies repeat themselves; site-packages lies inside the standard library's folder.
_SKIPPED = {
    "tests",
    "test",
    "testing",
    "_vendor",
    "site-packages",
    "dist-packages",
    "idlelib",
    "lib2to3",
    "__pycache__",
}
_CODE_A_FILE, _TEXTS_A_FILE = 8, 24
_LARGEST = 32_000  # bytes of a file that is worth parsing for eight pieces of code
_SHORTEST_SESSION = 48
# Calls that give docstrings to functions written in C.
_DOC_CALL = re.compile(r"\badd_docstr|\badd_newdoc")
# Torch wraps every header in the same four lines.
_GUARD = re.compile(
    r"\A#if !defined\(TORCH_STABLE_ONLY\).*\n"
    r"|#else\n#error \"This file should not be included when .*\n#endif.*\n\Z"
)


def package_folder(name: str) -> Path:
    """The folder of package `name`, without importing it; raises DataError when it is not installed."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"{name} is not installed; the sample takes text from it", way_out="run `pip install 'olmix[sample]'`"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _files(folder: Path, suffixes: tuple[str, ...], *seed: str) -> list[Path]:
    """Files under `folder`, sorted by relative name, then permuted by the seed."""
    found = [path for path in folder.rglob("*") if path.suffix in suffixes]
    kept = [path for path in found if not _SKIPPED.intersection(path.relative_to(folder).parts)]
    names = sorted(path.relative_to(folder).as_posix() for path in kept)
    order = generator("sample-corpus", *seed).permutation(len(names))
    return [folder / names[i] for i in order]


def _is_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """The module and every statement in it; expressions are not visited, which makes it ten times as fast."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for block in ("body", "orelse", "finalbody", "handlers"):
            waiting.extend(getattr(node, block, ()) if not isinstance(node, ast.Expr) else ())


def strip_python(source: str) -> str:
    """`source` without comments and bare strings; "" when it does not parse, before or afterwards."""
    try:
        tree = ast.parse(source)
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (SyntaxError, ValueError, tokenize.TokenError):
        return ""
    lines = source.split("\n")
    dropped: set[int] = set()
    for token in tokens:
        if token.type == tokenize.COMMENT:
            row, column = token.start[0] - 1, token.start[1]
            lines[row] = lines[row][:column].rstrip()
            if not lines[row]:
                dropped.add(row)
    for node in _statements(tree):
        body = getattr(node, "body", [])
        strings = [statement for statement in body if _is_string(statement)]
        for statement in strings:
            dropped.update(range(statement.lineno - 1, statement.end_lineno))
        if strings and len(strings) == len(body) and not isinstance(node, ast.Module):
            first = strings[0]
            lines[first.lineno - 1] = " " * first.col_offset + "pass"
            dropped.discard(first.lineno - 1)
    code = "\n".join(line for row, line in enumerate(lines) if row not in dropped)
    code = re.sub(r"\n\s*\n\s*\n+(?=\S)", "\n\n", code).strip("\n") + "\n"
    try:
        ast.parse(code)
    except SyntaxError:
        return ""  # a bare string shares its line with code
    return code


def separate(docstring: str) -> tuple[str, str]:
    """Split a docstring into its prose (a paragraph a line) and its `>>>` sessions (a block a paragraph)."""
    paragraphs: list[list[str]] = [[]]
    blocks: list[list[str]] = []
    inside = False
    for line in inspect.cleandoc(docstring).splitlines():
        bare = line.strip()
        if not bare:
            inside = False
            paragraphs.append([])
        elif inside or bare.startswith(">>> "):
            if not inside:
                blocks.append([])
                indent = len(line) - len(line.lstrip())
            inside = True
            blocks[-1].append(line[min(indent, len(line) - len(line.lstrip())) :].rstrip())
        elif set(bare) <= set('-=~^*#"+') and paragraphs[-1]:
            paragraphs[-1].pop()  # the line above was a heading
        else:
            paragraphs[-1].append(bare)
    prose = [text for text in (" ".join(lines) for lines in paragraphs) if _is_prose(text)]
    # A block is dropped whole: an output that cannot be kept would leave its input without an answer.
    kept = [text for text in map("\n".join, blocks) if text.isascii() and len(text) > len(">>> x")]
    return "\n".join(prose), "\n\n".join(kept)


def _is_prose(text: str) -> bool:
    """Words, not headings, directives, formulas, tables or code."""
    letters = sum(c.isalpha() or c == " " for c in text)
    return len(text) >= 48 and letters >= 0.85 * len(text) and not text.startswith((".. ", "|")) and "  " not in text


def docstrings(source: str) -> list[str]:
    """The docstrings in `source` and those it gives to functions in C; none when it does not parse."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    found: list[str] = []
    for node in _statements(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(ast.get_docstring(node, clean=False) or "")
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _DOC_CALL.search(_called(node.value)):
            found.extend(_strings(node.value))
    return [text for text in found if text]


def _called(call: ast.Call) -> str:
    function = call.func
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _strings(call: ast.Call) -> Iterator[str]:
    for node in ast.walk(call):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
            yield node.value


def _read(path: Path) -> str:
    """The text at `path`, or "" when it is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8").replace("\r\n", "\n").replace("\x0c", "").expandtabs(4)
    except UnicodeDecodeError:
        return ""


@functools.cache
def _prose_and_sessions(path: Path) -> list[tuple[str, str]]:
    return [separate(text) for text in docstrings(_read(path))]


def _code(files: list[Path], most: int = _CODE_A_FILE) -> Iterator[str]:
    for path in files:
        source = _read(path) if path.stat().st_size <= _LARGEST else ""
        if not _DOC_CALL.search(source):  # such a file is docstrings from end to end
            yield from spread(pieces(strip_python(source)), most)


def _prose(files: list[Path]) -> Iterator[str]:
    for path in files:
        found = [piece for prose, _ in _prose_and_sessions(path) for piece in prose_pieces(prose)]
        yield from spread(found, _TEXTS_A_FILE)


def _sessions(files: list[Path]) -> Iterator[str]:
    for path in files:
        # Most files hold none, and searching for one is a hundred times faster than parsing.
        if b">>> " in path.read_bytes():
            found = [
                piece for _, text in _prose_and_sessions(path) for piece in pieces(text, shortest=_SHORTEST_SESSION)
            ]
            yield from spread(found, _TEXTS_A_FILE)


def prose_pieces(text: str) -> list[str]:
    """Documents made of whole paragraphs (lines) of `text`."""
    found: list[str] = []
    current = ""
    for paragraph in text.split("\n"):
        if current and len(current) + len(paragraph) + 1 > LONGEST:
            found.append(current)
            current = ""
        current += paragraph + "\n"
    found.append(current)
    return [piece for piece in found if piece.isascii() and SHORTEST <= len(piece) <= LONGEST]


@functools.cache
def _package_files() -> dict[str, list[Path]]:
    return {name: _files(package_folder(name), (".py",), "package", name) for name in PACKAGES}


def python_code() -> Iterator[str]:
    """Python without comments and docstrings, evenly across the packages."""
    return evenly({name: _code(files) for name, files in _package_files().items()})


def docstring_prose() -> Iterator[str]:
    """Paragraphs of docstrings, evenly across the packages."""
    return evenly({name: _prose(files) for name, files in _package_files().items()})


def doctest_sessions() -> Iterator[str]:
    """The sessions of one docstring a document, evenly across the packages."""
    return evenly({name: _sessions(files) for name, files in _package_files().items()})


def headers() -> Iterator[str]:
    """Torch's C++ headers, evenly across their folders: nine in ten files lie in the generated `ATen/ops`."""
    folder = package_folder("torch") / "include"
    groups: dict[str, list[Path]] = {}
    for path in _files(folder, (".h", ".hpp", ".cuh"), "headers"):
        groups.setdefault("/".join(path.relative_to(folder).parts[:-1][:2]), []).append(path)
    if not groups:
        raise DataError(
            "no C++ headers; the sample corpus needs torch from a wheel", file=folder, way_out="run `pip install torch`"
        )
    return evenly({name: _headers(files) for name, files in groups.items()})


def _headers(files: list[Path]) -> Iterator[str]:
    for path in files:
        yield from spread(pieces(_GUARD.sub("", _read(path))), _CODE_A_FILE)


def standard_library() -> Iterator[str]:
    """Code of the standard library, treated as `python_code` is: near to it, and in no domain."""
    return _code(_files(Path(sysconfig.get_path("stdlib")), (".py",), "stdlib"), most=2)


def help_topics() -> Iterator[str]:
    """Prose of Python's own help topics: near to docstrings, and in no domain."""
    from pydoc_data.topics import topics

    found = [piece for name in sorted(topics) for piece in prose_pieces(separate(topics[name])[0])]
    order = generator("sample-corpus", "topics").permutation(len(found))
    return iter([found[i] for i in order])
