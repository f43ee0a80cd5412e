"""Mixture files: `mixtures/accepted.yaml` and `mixtures/proposed.yaml`.

They are read by people as git diffs: one line a domain, sorted, six decimals, nothing that changes by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from olmix.core.digest import from_hex, to_hex
from olmix.core.mixture import Mixture, Share
from olmix.core.plan import Accepted, Reuse
from olmix.errors import MixtureError
from olmix.files import read_yaml, write_bytes, yaml_text

DECIMALS = 6
_NO_LINE = "not a line of weight, tokens and digest"
# What sections that people write by hand must hold, for what is shown of them.
_NUMBERS = {"target": ("tokens", "repetition"), "measured": ("bpb", "seeds")}


@dataclass(frozen=True)
class Use:
    """How the target uses a domain: how often it reads it, None without a target, and whether its weight fills its
    cap, None where nobody says."""

    repetition: float | None = None
    capped: bool | None = None


@dataclass(frozen=True)
class MixtureFile:
    """A mixture and what stands around it in its file; `uses` by domain."""

    mixture: Mixture
    uses: Mapping[str, Use] = field(default_factory=dict)
    dataset: str | None = None
    base: Mixture = field(default_factory=lambda: Mixture({}))
    reuse: Reuse | None = None
    sections: Mapping[str, Any] = field(default_factory=dict)

    @property
    def accepted(self) -> Accepted:
        """What a plan starts from when this file is the accepted one."""
        return Accepted(self.mixture, self.dataset, self.base, self.reuse)


def parse_mixture(content: object, where: str) -> MixtureFile:
    """A parsed mixture file; raises MixtureError naming `where` and the domain."""
    if not isinstance(content, dict) or not isinstance(content.get("domains"), dict):
        raise MixtureError("not a mixture file: it has no mapping `domains`", file=where)
    known = {"domains", "tokenizer", "dataset", "base", "reuse"}
    base = content.get("base") or {"domains": {}}
    if not isinstance(base, dict) or not isinstance(base.get("domains"), dict):
        raise MixtureError("not a mixture: it has no mapping `domains`", file=where, key="base")
    for name, row in content["domains"].items():
        if not isinstance(row, dict) or not isinstance(row.get("repetition", 0.0), int | float):
            raise MixtureError(_NO_LINE, file=where, key=f"domains.{name}")
    for key, needed in _NUMBERS.items():
        section = content.get(key)
        if section is not None and not all(isinstance(section, dict) and _is_number(section.get(n)) for n in needed):
            raise MixtureError(f"write {' and '.join(needed)}, each a number, or leave {key} out", file=where, key=key)
    return MixtureFile(
        mixture=_mixture(content, where),
        uses={name: Use(row.get("repetition"), row.get("capped")) for name, row in content["domains"].items()},
        dataset=content.get("dataset"),
        base=_mixture(base, where, "base."),
        reuse=_reuse(content.get("reuse"), where),
        sections={key: value for key, value in content.items() if key not in known},
    )


def _reuse(content: Any, where: str) -> Reuse | None:
    if content is None:
        return None
    if not isinstance(content, dict) or content.get("mode") not in ("full", "none"):
        raise MixtureError("write the mode (full or none) and the domains to recompute", file=where, key="reuse")
    recompute, keep = content.get("recompute") or [], content.get("keep") or {}
    tolerance, drift_by = content.get("tolerance", 0.0), content.get("drift_by", "documents")
    if not isinstance(recompute, list) or any(not isinstance(name, str) for name in recompute):
        raise MixtureError(f"{recompute!r} is not a list of domains", file=where, key="reuse.recompute")
    if not _is_number(tolerance):
        raise MixtureError(f"{tolerance!r} is not a number", file=where, key="reuse.tolerance")
    if drift_by not in ("documents", "distribution"):
        raise MixtureError(f"{drift_by!r} is neither documents nor distribution", file=where, key="reuse.drift_by")
    if not isinstance(keep, dict) or any(not isinstance(part, str) for row in keep.items() for part in row):
        raise MixtureError(f"{keep!r} does not map domains to digests", file=where, key="reuse.keep")
    return Reuse(content["mode"], tuple(recompute), tolerance, drift_by, tuple(sorted(keep.items())))


def read_mixture(path: Path) -> MixtureFile:
    """Read a mixture file; raises ConfigError for bad YAML and MixtureError for a bad mixture."""
    return parse_mixture(read_yaml(path), str(path))


def _mixture(content: Mapping[str, Any], where: str, section: str = "") -> Mixture:
    shares = {}
    for name, row in content["domains"].items():
        key = f"{section}domains.{name}"
        if not isinstance(name, str) or not isinstance(row, dict):
            raise MixtureError(_NO_LINE, file=where, key=key)
        missing = sorted({"weight", "tokens", "digest"} - set(row))
        if missing:
            raise MixtureError(
                f"{', '.join(missing)} missing; a line has weight, tokens and digest", file=where, key=key
            )
        weight, tokens = row["weight"], row["tokens"]
        if not _is_number(weight):
            raise MixtureError(f"weight {weight!r} is not a number", file=where, key=key)
        if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens <= 0:
            raise MixtureError(f"tokens {tokens!r} is not a positive whole number", file=where, key=key)
        origin = row.get("measured_on")
        shares[name] = Share(
            float(weight),
            tokens,
            from_hex(row["digest"], where, key),
            None if origin is None else from_hex(origin, where, f"{key}.measured_on"),
        )
    try:
        return Mixture(shares, content.get("tokenizer"))
    except MixtureError as error:
        raise error.at(file=where, key=section.rstrip(".") or None) from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def render_mixture(file: MixtureFile, heading: str) -> str:
    """The text of a mixture file."""
    parts = [f"# {line}\n" for line in heading.splitlines()]
    parts += [_section({"dataset": file.dataset})] if file.dataset else []
    parts += [_section({"tokenizer": file.mixture.tokenizer})] if file.mixture.tokenizer else []
    parts.append("domains:\n" + _lines(file.mixture, file.uses))
    parts += [_section({key: value}) for key, value in file.sections.items()]
    if file.reuse is not None:
        reuse = file.reuse
        parts.append(
            _section({"reuse": {**asdict(reuse), "recompute": list(reuse.recompute), "keep": dict(reuse.keep)}})
        )
    if file.base.domains:
        tokenizer = f"  tokenizer: '{file.base.tokenizer}'\n" if file.base.tokenizer else ""
        lines = "".join(f"  {line}\n" for line in _lines(file.base, {}).splitlines())
        parts.append(f"base:\n{tokenizer}  domains:\n{lines}")
    return "".join(parts)


def write_mixture(path: Path, file: MixtureFile, heading: str) -> None:
    """Write a mixture file atomically."""
    write_bytes(path, render_mixture(file, heading).encode())


def _lines(mixture: Mixture, uses: Mapping[str, Use]) -> str:
    """One flow mapping a domain, unaligned: a longer name elsewhere must not change a line.

    Digests are quoted: some hexadecimal digits are a number to YAML.
    """
    if not mixture.domains:
        return "  {}\n"
    keys = {name: yaml_text(name) for name in mixture.domains}
    lines = []
    for name, share in mixture.domains.items():
        use = uses.get(name, Use())
        extra = "" if use.repetition is None else f"repetition: {use.repetition:.3f}, "
        extra += "" if use.capped is None else f"capped: {str(use.capped).lower()}, "
        lines.append(
            f"  {keys[name]}: {{weight: {share.weight:.{DECIMALS}f}, tokens: {share.tokens}, "
            f"{extra}digest: '{to_hex(share.digest)}', measured_on: '{to_hex(share.origin)}'}}\n"
        )
    return "".join(lines)


class _Dumper(yaml.SafeDumper):
    """Block style for sections, flow style for lists, so that a changed value is a changed line."""


_Dumper.add_representer(
    list, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)
)


def _section(section: Mapping[str, Any]) -> str:
    return yaml.dump(dict(section), Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)
