"""`build/plan.json`: the plan as every later stage reads it, and as `olmix plan` computes it again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from olmix.core.changes import Change
from olmix.core.dataset import Dataset, Domain
from olmix.core.digest import from_hex, to_hex
from olmix.core.mixture import Mixture, Share
from olmix.core.plan import Plan
from olmix.core.sketch import Drift
from olmix.core.virtual import CollapsedSpace
from olmix.errors import DataError, MixtureError, OlmixError
from olmix.files import read_json
from olmix.project import Project


def change_to_json(change: Change) -> dict[str, Any]:
    """`{kind, domains, from}`."""
    return {"kind": change.kind, "domains": list(change.domains), "from": list(change.origin)}


def dataset_to_json(dataset: Dataset) -> dict[str, Any]:
    """`{domain: {digest, tokens, source}}`."""
    return {
        name: {"digest": to_hex(d.digest), "tokens": d.tokens, "source": d.source}
        for name, d in dataset.domains.items()
    }


def dataset_from_json(content: Any, where: str, tokenizer: str | None = None) -> Dataset:
    """A dataset version from `{domain: {digest, tokens, source}}`; raises MixtureError naming `where`."""
    if not isinstance(content, dict):
        raise MixtureError("not a dataset", file=where, way_out="write {domain: {digest, tokens, source}}")
    domains = {}
    for name, row in content.items():
        if not isinstance(row, dict) or not isinstance(row.get("tokens"), int) or "digest" not in row:
            raise MixtureError("needs a digest (hexadecimal) and tokens (a whole number)", file=where, key=str(name))
        domains[name] = Domain(from_hex(row["digest"], where, str(name)), row["tokens"], row.get("source"))
    return Dataset(domains, tokenizer)


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain values."""
    base = {
        name: {"weight": s.weight, "tokens": s.tokens, "digest": to_hex(s.digest), "measured_on": to_hex(s.origin)}
        for name, s in plan.base.domains.items()
    }
    return {
        "dataset": {"digest": plan.dataset.digest, "tokenizer": plan.dataset.tokenizer},
        "domains": dataset_to_json(plan.dataset),
        "base": {"domains": base, "tokenizer": plan.base.tokenizer},
        "changes": [change_to_json(change) for change in plan.changes],
        "affected": list(plan.affected),
        "virtual": {"members": dict(plan.space.members)} if plan.space.members else None,
        "carried": dict(plan.carried),
        "duplicates": [list(names) for names in plan.duplicates],
        "drifts": {name: asdict(drift) for name, drift in sorted(plan.drifts.items())},
    }


def plan_from_json(content: Any, where: str) -> Plan:
    """The plan that `plan_to_json` wrote; errors name `where`."""
    dataset = dataset_from_json(content["domains"], where, content["dataset"]["tokenizer"])
    base = {
        name: Share(row["weight"], row["tokens"], from_hex(row["digest"], name), from_hex(row["measured_on"], name))
        for name, row in content["base"]["domains"].items()
    }
    members = content["virtual"]["members"] if content["virtual"] else {}
    return Plan(
        dataset=dataset,
        base=Mixture(base, content["base"]["tokenizer"]),
        changes=tuple(Change(c["kind"], tuple(c["domains"]), tuple(c["from"])) for c in content["changes"]),
        space=CollapsedSpace(members, tuple(content["affected"])),
        carried=content["carried"],
        duplicates=tuple(tuple(names) for names in content["duplicates"]),
        drifts={name: Drift(**drift) for name, drift in content["drifts"].items()},
    )


def read_plan(project: Project) -> Plan:
    """The plan of this pipeline; raises DataError for one that is damaged, or of another version of olmix."""
    content = read_json(project.plan)
    try:
        return plan_from_json(content, str(project.plan))
    except (KeyError, TypeError, ValueError, AttributeError, OlmixError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(
            f"not a plan of this version of olmix ({reason})", file=project.plan, way_out="run `dvc repro -f plan`"
        ) from None
