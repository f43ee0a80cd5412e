"""Files of DVC's run-cache: an entry and the outputs that it once had, in the form of a stage in `dvc.lock`.

The folder of such a file is named by the entry's key, a hash of command, input and output paths; the file by its value,
a hash of its content, so a file that was changed or cut off does not match its own name. It is written as JSON, which
is YAML too and quotes every string: an MD5 such as 1234e5 is a number to one YAML reader and text to another.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import yaml

from olmix.errors import ConfigError
from olmix.files import canonical_json, parse_yaml
from olmix.pipeline.dvc_internals import Lock, entry_key, entry_value, lock_of, locked_file, outs_of
from olmix.runs.sharing import Entry

NAME = re.compile(r"[0-9a-f]{64}")
LARGEST = 1 << 16
_MD5 = re.compile(r"[0-9a-f]{32}")


class InvalidEntryError(Exception):
    """An entry file that cannot be used; the message says why."""


@dataclass(frozen=True)
class Output:
    """An output as an entry file names it: MD5 of its bytes, and how many there are, if it says so."""

    md5: str
    size: int | None


@dataclass(frozen=True)
class EntryFile:
    """A valid entry: its key and value, its outputs by path, and the bytes of the file."""

    key: str
    value: str
    outputs: Mapping[str, Output]
    content: bytes


def md5(content: bytes) -> str:
    """MD5, by which DVC names objects; it is no protection against an attacker."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _lock(entry: Entry, outputs: Mapping[str, Output]) -> Lock:
    dep = locked_file(entry.input_path, md5(entry.input), len(entry.input))
    outs = [locked_file(path, out.md5, out.size) for path, out in sorted(outputs.items())]
    return lock_of(entry.command, dep, outs)


def key_of(entry: Entry) -> str:
    """The hash under which the cache keeps every outcome of `entry`."""
    return entry_key(_lock(entry, {path: Output("", None) for path in entry.outputs}))


def entry_file(entry: Entry, outputs: Mapping[str, Output]) -> EntryFile:
    """The file that DVC would keep for a stage that ran `entry` and left `outputs`."""
    lock = _lock(entry, outputs)
    return EntryFile(entry_key(lock), entry_value(lock), dict(outputs), canonical_json(lock))


def _from_yaml(content: bytes, value: str) -> Any:
    """Parse what DVC wrote. Aliases of aliases could fill any memory, and no entry needs one."""
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(content, Loader=yaml.SafeLoader)):
            raise InvalidEntryError("it has aliases")
        return parse_yaml(content, value)
    except (ConfigError, yaml.YAMLError, ValueError, TypeError) as error:  # TypeError: a key that is a list
        raise InvalidEntryError(str(error)) from None


def read_entry_file(content: bytes, entry: Entry, value: str) -> EntryFile:
    """Parse a file named `value` under the key of `entry`, DVC's or ours; raises InvalidEntryError with the reason."""
    if len(content) > LARGEST:
        raise InvalidEntryError("it is too large for an entry")
    try:
        lock = orjson.loads(content)
    except orjson.JSONDecodeError:
        lock = _from_yaml(content, value)
    if not isinstance(lock, dict):
        raise InvalidEntryError("not a stage")
    try:
        outs = outs_of(lock)
        key, own = entry_key(lock), entry_value(lock)
    except (TypeError, ValueError, RecursionError) as error:  # no outputs, a date, a set, a list that holds itself
        raise InvalidEntryError(f"it is not the lock of a stage: {error}") from None
    if (key, own) != (key_of(entry), value):
        raise InvalidEntryError("its content does not match its name")
    for path, name, size in outs:
        if not (isinstance(name, str) and _MD5.fullmatch(name)) or not (size is None or isinstance(size, int)):
            raise InvalidEntryError(f"{path} has no MD5 of a file, or no number of bytes")
    return EntryFile(key, value, {path: Output(name, size) for path, name, size in outs}, content)
