"""Sketches of domains as text: in manifests, and, for drift to count from, in `mixtures/sketches.jsonl`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from olmix.core.digest import from_hex, to_hex
from olmix.core.sketch import BUCKETS, GROUPS, Sketch
from olmix.errors import DataError
from olmix.files import write_bytes

_HASH_BYTES = 6


def sketch_to_json(sketch: Sketch) -> dict[str, Any]:
    """`{unit, total, bound, hashes, sizes, profile, sample}`, arrays in base64: 6 bytes a hash and 4 a size."""
    hashes = sketch.hashes.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - _HASH_BYTES :]
    return {
        "unit": sketch.unit,
        "total": sketch.total,
        "bound": sketch.bound,
        "hashes": _base64(hashes.tobytes()),
        "sizes": _base64(sketch.sizes.astype("<f4").tobytes()),
        "profile": _base64(sketch.profile.astype("<f2").tobytes()),
        "sample": sketch.sample,
    }


def sketch_from_json(content: Any, where: Path, key: str) -> Sketch:
    """The sketch that `sketch_to_json` wrote; raises DataError naming `where` and `key`."""
    try:
        short = np.frombuffer(base64.b64decode(content["hashes"], validate=True), np.uint8).reshape(-1, _HASH_BYTES)
        hashes = np.zeros((len(short), 8), dtype=np.uint8)
        hashes[:, 8 - _HASH_BYTES :] = short
        sizes = np.frombuffer(base64.b64decode(content["sizes"], validate=True), "<f4").astype(np.float32)
        profile = np.frombuffer(base64.b64decode(content["profile"], validate=True), "<f2").astype(np.float16)
        total, bound = content["total"], content["bound"]
        sound = (
            content["unit"] in ("bytes", "tokens")
            and all(type(number) is int and number > 0 for number in (total, bound))
            and len(sizes) == len(hashes)
            and np.isfinite(sizes).all()
            and (sizes >= 0).all()
            and np.isfinite(profile).all()
            and (profile >= 0).all()
        )
        if sound:
            return Sketch(
                content["unit"],
                total,
                bound,
                hashes.view(">u8").ravel().astype(np.uint64),
                sizes,
                profile.reshape(GROUPS, BUCKETS),
                content.get("sample"),
            )
    except (KeyError, TypeError, ValueError, binascii.Error):
        pass
    raise DataError("not a sketch of a domain", file=where, key=key, way_out="restore the file from git, or empty it")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def sketches_of(manifests: Mapping[str, Mapping[str, Any]], where: Path) -> dict[int, Sketch]:
    """The sketches in manifests, by the digest of the domain."""
    return {
        from_hex(manifest["digest"], name): sketch_from_json(manifest["sketch"], where / f"{name}.json", "sketch")
        for name, manifest in manifests.items()
    }


def read_sketches(path: Path) -> dict[int, Sketch]:
    """The sketches of `mixtures/sketches.jsonl`, by digest; none where there is no file. Raises DataError.

    A line may stand twice, and lines in any order: git merges two branches' files by keeping the lines of both.
    """
    found = {}
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else (), 1):
        key = f"line {number}"
        try:
            content = orjson.loads(line)
            digest = content["digest"]
        except (ValueError, KeyError, TypeError):
            raise DataError(
                "not a line of digest and sketch", file=path, key=key, way_out="restore the file from git, or empty it"
            ) from None
        found[from_hex(digest, str(path), key)] = sketch_from_json(content, path, key)
    return found


def write_sketches(path: Path, sketches: Mapping[int, Sketch], digests: Iterable[int]) -> None:
    """Write the sketches of `digests`, as far as they are known, a line each, in the order of their digests."""
    lines = [
        orjson.dumps({"digest": to_hex(digest), **sketch_to_json(sketches[digest])}, option=orjson.OPT_APPEND_NEWLINE)
        for digest in sorted(set(digests) & sketches.keys())
    ]
    write_bytes(path, b"".join(lines))
