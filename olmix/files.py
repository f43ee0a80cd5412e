"""Reading and writing the project's own files: atomic writes, canonical JSON and YAML, paths that stay inside.

A file at its final path is whole: it is written under a temporary name beside it, flushed to the disk, and renamed.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import IO, Any

import orjson
import xxhash
import yaml

from olmix.errors import ConfigError, DataError, OlmixError

TEMPORARY = ".olmix-tmp-"
# Temporary files of another machine, whose processes cannot be asked after, are swept when they are this old.
_FOREIGN_SECONDS = 24 * 3600.0


def _host() -> str:
    """This machine, as temporary names have it: several may write to one shared file system."""
    return xxhash.xxh3_64_hexdigest(platform.node().encode())


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` with a file that becomes `path` when it is whole; the old file stays when anything fails."""
    temporary = path.with_name(f"{TEMPORARY}{_host()}-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OlmixError(f"cannot be written: {error.strerror}", file=path, way_out="nothing was changed") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    write_atomically(path, lambda file: file.write(content))


def copy_file(source: Path, path: Path) -> None:
    """Copy `source` to `path` atomically, a part at a time."""
    with source.open("rb") as file:
        write_atomically(path, lambda copy: shutil.copyfileobj(file, copy, 1 << 20))


def sweep(folder: Path) -> None:
    """Remove what writers that are no longer alive left under temporary names below `folder`."""
    for leftover in folder.rglob(f"{TEMPORARY}*") if folder.is_dir() else ():
        host, writer = [*leftover.name.removeprefix(TEMPORARY).split("-"), "", ""][:2]
        with contextlib.suppress(FileNotFoundError):  # another process sweeps, or the file has been renamed
            if host != _host():
                alive = time.time() - leftover.stat().st_mtime < _FOREIGN_SECONDS
            else:
                alive = writer.isdigit() and Path(f"/proc/{writer}").exists() and int(writer) != os.getpid()
            if not alive:
                leftover.unlink()


_OTHER_FOLDER = "choose another folder with --out"
NOTHING_TO_TRAIN = "Nothing is recomputed: no proxy is trained for this plan."


def require_folder(folder: Path) -> None:
    """Make `folder` unless it is there; raises OlmixError, before long work, when nothing can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OlmixError(f"cannot be written: {error.strerror}", file=folder, way_out=_OTHER_FOLDER) from None
    if not os.access(folder, os.W_OK):
        raise OlmixError("cannot be written: no permission", file=folder, way_out=_OTHER_FOLDER)


def output_folder(folder: Path, empty: bool, why: str = NOTHING_TO_TRAIN) -> None:
    """Make an output folder that holds nothing of an earlier run; one that stays empty says `why` in a file,
    because DVC warns of empty folders again and again. Raises OlmixError when it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stray in folder.iterdir():
            shutil.rmtree(stray) if stray.is_dir() and not stray.is_symlink() else stray.unlink()
    except OSError as error:
        raise OlmixError(
            f"cannot be recreated: {error.strerror}", file=folder, way_out="remove it and run `dvc repro`"
        ) from error
    if empty:
        write_bytes(folder / "EMPTY", f"{why}\n".encode())


def canonical_json(value: object) -> bytes:
    """Sorted keys, two spaces, a final newline: the same value is the same bytes."""
    options = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
    return orjson.dumps(value, option=options)


def write_json(path: Path, value: object) -> None:
    """Write canonical JSON atomically."""
    write_bytes(path, canonical_json(value))


def read_json(path: Path) -> Any:
    """Parse a JSON file; raises DataError with the file and the place."""
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError("no such file", file=path) from None
    except (orjson.JSONDecodeError, OSError) as error:
        raise DataError(f"not JSON: {error}", file=path) from None


class _UniqueKeyLoader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """The safe loader, which also refuses a duplicate key: YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


# Plain scalars that YAML 1.1 (PyYAML) and YAML 1.2 (DVC) read differently, besides numbers that only 1.2 knows.
_TWO_READINGS = re.compile(
    r"(?i:yes|no|on|off)|[-+]?_[0-9_]*|[-+]?0[0-9_]+|[-+]?0o[0-7_]+|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"
)
_NUMBER = re.compile(r"[-+]?(?:\.[0-9_]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?")
_TEXT = "tag:yaml.org,2002:str"


def _as_number(text: str) -> str:
    """The number of YAML 1.2, as both read it."""
    number = float(text.replace("_", ""))
    short = f"{number:g}"
    return f"{number:.6e}" if "e" in short else short  # with a dot and a signed exponent


class _TwoReadingsError(yaml.MarkedYAMLError):
    """A scalar that DVC and olmix would read differently."""


class _OneReadingLoader(_UniqueKeyLoader):
    """The same, which also refuses a scalar that DVC, which reads the file too, reads as something else."""

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        text = node.value
        is_number = bool(_NUMBER.fullmatch(text))
        if not node.style and (_TWO_READINGS.fullmatch(text) or (is_number and node.tag == _TEXT)):
            number = f", or {_as_number(text)} if it is a number" if is_number else ""
            switch = ", or true or false" if text.lower() in ("yes", "no", "on", "off") else ""
            raise _TwoReadingsError(
                None, None, f"YAML 1.1 and 1.2 read {text} differently; write '{text}'{number}{switch}", node.start_mark
            )
        return super().construct_scalar(node)


def yaml_text(text: str) -> str:
    """A text as both YAMLs read it, in quotes where it needs them, on one line."""
    try:
        if yaml.load(f"- {text}", _OneReadingLoader) == [text]:  # noqa: S506
            return text
    except yaml.YAMLError:
        pass
    return "'" + text.replace("'", "''") + "'"


def read_yaml(path: Path, *, dvc_reads_it: bool = False) -> Any:
    """Parse a YAML file with the safe loader; raises ConfigError with file, line and reason.

    With `dvc_reads_it`, a scalar that YAML 1.1 and 1.2 read differently is an error.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError("no such file", file=path, way_out="run olmix in the root of the project") from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=path) from None
    return parse_yaml(content, str(path), _OneReadingLoader if dvc_reads_it else _UniqueKeyLoader)


def parse_yaml(content: bytes, path: str, loader: type[_UniqueKeyLoader] = _UniqueKeyLoader) -> Any:
    """Parse YAML that came from `path`; raises ConfigError as `read_yaml` does."""
    try:
        return yaml.load(content, loader)  # noqa: S506  # a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        reason = error.problem if isinstance(error, _TwoReadingsError) else f"not valid YAML here: {error.problem}"
        raise ConfigError(f"{reason}", file=f"{path}:{line}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date such as 2026-13-45 is a ValueError
        reason = str(error).splitlines()[0]
        raise ConfigError(f"not valid YAML: {reason}", file=path) from None


def inside(root: Path, path: str, file: str, key: str) -> Path:
    """`path`, the value of `key` in `file`, below `root`.

    Raises ConfigError when it is absolute or leaves `root`, also through a link.
    """
    candidate = Path(path)
    if not path or candidate.is_absolute() or ".." in candidate.parts or "\0" in path:
        raise ConfigError(f"path {path!r} must be relative and stay inside the project", file=file, key=key)
    if not (root / candidate).resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"path {path!r} is a link to a place outside the project", file=file, key=key)
    return root / candidate
