"""`olmix diff`: what moved between two mixtures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olmix.artifacts.mixture_file import MixtureFile, Use
from olmix.cli.show import drift_note, drifted_in, measured_lines
from olmix.core.mixture import total_variation
from olmix.terminal.table import bar, decimals, table

# A change that four decimals do not show.
SEEN = 5e-5


def diff_json(a: MixtureFile, b: MixtureFile, validation: Mapping[str, Any] | None) -> dict[str, Any]:
    """Per domain weights, change, repetition and drift; total variation; predicted BPB of both, and whether they
    compare: only by the same law and objective; what was measured.

    A domain that was renamed is told by its digest and stands under its new name, with the old one as `renamed_from`.
    """
    after = b.mixture.weights
    renamed = _renamed(a, b)
    before = {renamed.get(name, name): weight for name, weight in a.mixture.weights.items()}
    old_names = {new: old for old, new in renamed.items()}
    return {
        "domains": {
            name: {
                "before": before.get(name),
                "after": after.get(name),
                "change": after.get(name, 0.0) - before.get(name, 0.0),
                "renamed_from": old_names.get(name),
                "repetition_before": a.uses.get(old_names.get(name, name), Use()).repetition,
                "repetition_after": b.uses.get(name, Use()).repetition,
                "drifted": drifted_in(b).get(name),
            }
            for name in sorted({*before, *after})
        },
        "total_variation": total_variation(before, after),
        "predicted": {"before": _predicted(a), "after": _predicted(b), "comparable": _same_fit(a, b)},
        "measured": validation,
    }


def diff_text(a: MixtureFile, b: MixtureFile, names: tuple[str, str], validation: Mapping[str, Any] | None) -> str:
    """The same as a table with bars."""
    content = diff_json(a, b, validation)
    scale = max((abs(row["change"]) for row in content["domains"].values()), default=0.0)
    rows = []
    for name, row in content["domains"].items():
        sign = "+" if row["before"] is None else "-" if row["after"] is None else "="
        sign = "~" if sign == "=" and abs(row["change"]) >= SEEN else sign
        seen = abs(row["change"]) >= SEEN
        direction = ("-" if row["change"] < 0 else "+") if seen else ""
        rows.append(
            [
                f"{sign} {row['renamed_from']} -> {name}" if row["renamed_from"] else f"{sign} {name}",
                _number(row["before"], ".4f"),
                _number(row["after"], ".4f"),
                decimals(row["change"], "+.4f"),
                _number(row["repetition_after"], ".2f"),
                direction + (bar(abs(row["change"]), scale) if seen else "") + drift_note(row["drifted"]),
            ]
        )
    lines = [
        f"{names[0]} -> {names[1]}",
        "",
        table(["domain", "before", "after", "change", "repetition", ""], rows),
        "",
    ]
    if a.mixture.domains:
        lines.append(f"Total variation {content['total_variation']:.4f}: the share of tokens that moves")
    predicted = content["predicted"]
    if predicted["before"] is not None and predicted["after"] is not None:
        lines.append(
            f"Predicted {predicted['before']:.4f} -> {predicted['after']:.4f} bits per byte"
            if predicted["comparable"]
            else f"Predicted {predicted['before']:.4f} before and {predicted['after']:.4f} after, bits per byte; "
            "from different laws, so the difference means nothing"
        )
    return "\n".join(lines + measured_lines(b, validation))


def _renamed(a: MixtureFile, b: MixtureFile) -> dict[str, str]:
    """New name by old name, for domains of `a` whose content stands in `b` under another name alone."""
    old, new = a.mixture.domains, b.mixture.domains
    came = {new[name].digest: name for name in sorted(new, reverse=True) if name not in old}
    return {name: came[share.digest] for name, share in old.items() if name not in new and share.digest in came}


def _predicted(file: MixtureFile) -> float | None:
    value = file.sections.get("predicted", {}).get("proposal", {}).get("bpb")
    return float(value) if value is not None else None


def _same_fit(a: MixtureFile, b: MixtureFile) -> bool:
    """Whether the very same law and objective predicted both, by their digests; a file without one is like no other."""
    one, other = (file.sections.get("fit") or (file.sections.get("trust") or {}).get("fit") for file in (a, b))
    return one is not None and one == other


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
