"""An entry of DVC's run-cache as a file: what `dvc.lock` says of one stage, under the hash of what went in.

An entry lies at `runs/<2>/<key>/<value>`: the key is a hash of command, input and output paths, the value one of the
whole. So a file that was changed or cut off does not match its own name, and is refused. It is written as JSON, which
is YAML too and quotes every string: an MD5 such as 1234e5 is a number to one YAML reader and text to another.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import yaml

from olmix.errors import ConfigError
from olmix.files import canonical_json, parse_yaml
from olmix.runs.sharing import Entry

NAME = re.compile(r"[0-9a-f]{64}")
LARGEST = 1 << 16
_MD5 = re.compile(r"[0-9a-f]{32}")

# DVC's own hash of a stage in the form of `dvc.lock`; sizes do not count.
LockHash = Callable[[dict[str, Any]], str]


class Refused(Exception):  # noqa: N818  # a judgement, not an error
    """An entry file that cannot be used; the message says why."""


@dataclass(frozen=True)
class Stored:
    """An output in the cache: MD5 of its bytes, and their number where the entry says it."""

    md5: str
    size: int | None


@dataclass(frozen=True)
class EntryFile:
    """A valid entry: its key and value, its outputs by path, and the bytes of the file."""

    key: str
    value: str
    outputs: Mapping[str, Stored]
    content: bytes


def md5(content: bytes) -> str:
    """MD5, by which DVC names objects; it is no protection against an attacker."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _input(entry: Entry) -> dict[str, Any]:
    return {"path": entry.input_path, "hash": "md5", "md5": md5(entry.input), "size": len(entry.input)}


def key_of(entry: Entry, lock_hash: LockHash) -> str:
    """The hash under which all that `entry` ever left is kept."""
    return lock_hash({"cmd": entry.command, "deps": [_input(entry)], "outs": sorted(entry.outputs)})


def entry_file(entry: Entry, outputs: Mapping[str, Stored], lock_hash: LockHash) -> EntryFile:
    """The file that DVC would keep for a stage that ran `entry` and left `outputs`."""
    outs = [{"path": path, "hash": "md5", "md5": out.md5, "size": out.size} for path, out in sorted(outputs.items())]
    content = {"cmd": entry.command, "deps": [_input(entry)], "outs": outs}
    return EntryFile(key_of(entry, lock_hash), lock_hash(content), dict(outputs), canonical_json(content))


def _from_yaml(content: bytes, value: str) -> Any:
    """What DVC wrote. An alias stands for a copy, and copies of copies fill any memory; no entry needs one."""
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(content, Loader=yaml.SafeLoader)):
            raise Refused("it has aliases")
        return parse_yaml(content, value)
    except (ConfigError, yaml.YAMLError, ValueError, TypeError) as error:  # TypeError: a key that is a list
        raise Refused(str(error)) from None


def read_entry_file(content: bytes, entry: Entry, value: str, lock_hash: LockHash) -> EntryFile:
    """What a file named `value` under the key of `entry` says, DVC's or ours; raises Refused with the reason."""
    if len(content) > LARGEST:
        raise Refused("it is too large for an entry")
    try:
        parsed = orjson.loads(content)
    except orjson.JSONDecodeError:
        parsed = _from_yaml(content, value)
    if not isinstance(parsed, dict):
        raise Refused("not a stage")
    outs = parsed.get("outs")
    if not isinstance(outs, list) or not all(isinstance(out, dict) for out in outs):
        raise Refused("no list of outputs")
    if sorted(str(out.get("path")) for out in outs) != sorted(entry.outputs):
        raise Refused(f"its outputs are {[out.get('path') for out in outs]}, not {list(entry.outputs)}")
    outputs = {}
    for out in outs:
        name, size = out.get("md5"), out.get("size")
        if not (isinstance(name, str) and _MD5.fullmatch(name)) or not (size is None or isinstance(size, int)):
            raise Refused(f"{out['path']} has no MD5 of a file, or no number of bytes")
        outputs[out["path"]] = Stored(name, size)
    try:
        key, own = lock_hash({**parsed, "outs": [out["path"] for out in outs]}), lock_hash(parsed)
    except (TypeError, ValueError, RecursionError) as error:  # a date, a set, a list that holds itself
        raise Refused(f"it cannot be hashed: {error}") from None
    if (key, own) != (key_of(entry, lock_hash), value):
        raise Refused("its content does not match its name")
    return EntryFile(key, value, outputs, content)
