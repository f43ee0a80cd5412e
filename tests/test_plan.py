"""The plan is a pure function of dataset, base and reuse settings."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmix.artifacts.plan_file import plan_from_json, plan_to_json
from olmix.cli.plan_view import PlanView
from olmix.core.dataset import Dataset, Domain
from olmix.core.digest import document_digest, total
from olmix.core.mixture import Mixture, Share
from olmix.core.plan import EMPTY, Accepted, Plan, Reuse, make_plan, swarm_size
from olmix.core.seeds import named_key
from olmix.core.sketch import sketch
from olmix.errors import ConfigError, MixtureError
from olmix.files import canonical_json
from tests.public_swarms import swarms_folder

GOLDEN = Path(__file__).parent / "golden"


def dataset(**tokens: int) -> Dataset:
    return Dataset({name: Domain(named_key("doc", name), count) for name, count in tokens.items()}, "tok")


def accepted(version: Dataset, weights: dict[str, float]) -> Mixture:
    return Mixture(
        {n: Share(w, version.domains[n].tokens, version.domains[n].digest) for n, w in weights.items()},
        version.tokenizer,
    )


OLD = dataset(web=400, code=200, math=100)
BASE = accepted(OLD, {"web": 0.25, "code": 0.25, "math": 0.5})


def test_without_a_base_everything_is_added_and_affected() -> None:
    plan = make_plan(OLD, EMPTY, Reuse())
    assert plan.affected == ("code", "math", "web")
    assert plan.dimensions == 3
    assert not plan.space.members
    assert [change.kind for change in plan.changes] == ["add"] * 3


def test_example_of_the_method_expands_as_written() -> None:
    """Old (.25, .25, .5), solved (.4, .6) gives (.1, .1, .2, .6)."""
    plan = make_plan(dataset(web=400, code=200, math=100, news=50), BASE, Reuse())
    assert plan.space.names == ("@virtual", "news")
    assert plan.space.expand([0.4, 0.6]) == pytest.approx({"code": 0.1, "math": 0.2, "news": 0.6, "web": 0.1})


def test_remove_alone_affects_nobody() -> None:
    plan = make_plan(dataset(web=400, math=100), BASE, Reuse())
    assert plan.affected == ()
    assert plan.dimensions == 0
    assert plan.carried == pytest.approx({"math": 2 / 3, "web": 1 / 3})


def test_partial_and_no_reuse() -> None:
    new = dataset(web=400, code=200, math=100, news=50)
    assert make_plan(new, BASE, Reuse(recompute=("web",))).affected == ("news", "web")
    assert make_plan(new, BASE, Reuse("none")).affected == ("code", "math", "news", "web")
    with pytest.raises(ConfigError, match=r"recompute: no domain nope; the domains are code"):
        make_plan(new, BASE, Reuse(recompute=("nope",)))


def test_a_rename_is_unchanged_and_keeps_its_ratio() -> None:
    domains = dict(OLD.domains)
    domains["pages"] = domains.pop("web")
    plan = make_plan(Dataset(domains, "tok"), BASE, Reuse())
    assert plan.affected == ()
    assert plan.carried == {"code": 0.25, "math": 0.5, "pages": 0.25}


def test_split_and_merge_are_recomputed() -> None:
    halves = {"web-1": Domain(named_key("w1"), 150), "web-2": Domain(named_key("w2"), 250)}
    rest = {name: OLD.domains[name] for name in ("code", "math")}
    whole = Dataset({**rest, "web": Domain(total(d.digest for d in halves.values()), 400)}, "tok")
    base = accepted(whole, {"web": 0.25, "code": 0.25, "math": 0.5})
    split = make_plan(Dataset({**rest, **halves}, "tok"), base, Reuse())
    assert (split.affected, [c.kind for c in split.changes]) == (("web-1", "web-2"), ["partition"])
    parts = accepted(split.dataset, {"web-1": 0.2, "web-2": 0.05, "code": 0.25, "math": 0.5})
    merged = make_plan(whole, parts, Reuse())
    assert (merged.affected, [c.kind for c in merged.changes]) == (("web",), ["merge"])


def test_an_estimate_is_shown_with_its_error() -> None:
    halves = {"web-1": Domain(named_key("w1"), 1_500_000), "web-2": Domain(named_key("w2"), 2_500_000)}
    whole = Dataset({**OLD.domains, "web": Domain(total(d.digest for d in halves.values()), 4_000_000)}, "tok")
    base = accepted(whole, {"web": 0.25, "code": 0.25, "math": 0.5})
    new = {**halves, "code": Domain(named_key("v2"), 1_842_077), "news": Domain(named_key("n"), 1_000_000)}
    plan = make_plan(Dataset(new, "tok"), base, Reuse())

    def shown(errors: dict[str, int | None]) -> set[str]:
        view = PlanView(plan, None, 9, 9, 0, token_errors=errors)
        assert view.to_json()["token_errors"] == errors
        return {line.rsplit("  ", 1)[1] for line in view.to_text().splitlines() if line.endswith(("tokens", "error"))}

    assert shown({"code": 3_100, "web-1": 3_000, "web-2": 4_000, "news": 0}) == {
        "added, 1,000,000 ± 0 tokens",
        "partitioned, 4,000,000 -> 4,000,000 ± 5,000 tokens",
        "removed, 100 tokens",
        "revised, 200 -> 1,842,077 ± 3,100 tokens",
    }
    assert shown({"web-2": 4_000, "news": None}) == {
        "added, 1,000,000 tokens, an estimate of unknown error",
        "partitioned, 4,000,000 -> 4,000,000 ± 4,000 tokens",
        "removed, 100 tokens",
        "revised, 200 -> 1,842,077 tokens",
    }


def test_carried_over_means_the_old_weights_on_todays_domains() -> None:
    revised = Domain(named_key("v2"), 150)
    plan = make_plan(Dataset({**OLD.domains, "math": revised, "news": Domain(named_key("n"), 9)}, "tok"), BASE, Reuse())
    assert plan.carried == {"code": 0.25, "math": 0.5, "web": 0.25}
    halves = {"web-1": Domain(named_key("w1"), 100), "web-2": Domain(named_key("w2"), 300)}
    whole = Dataset({**OLD.domains, "web": Domain(total(d.digest for d in halves.values()), 400)}, "tok")
    base = accepted(whole, {"web": 0.4, "code": 0.1, "math": 0.5})
    rest = {"code": OLD.domains["code"]}
    split = make_plan(Dataset({**rest, **halves}, "tok"), base, Reuse())
    assert split.carried == pytest.approx({"code": 0.2, "web-1": 0.2, "web-2": 0.6})


def test_another_tokeniser_revises_every_domain() -> None:
    plan = make_plan(Dataset(OLD.domains, "other"), BASE, Reuse())
    assert plan.affected == OLD.names
    assert {change.kind for change in plan.changes} == {"revise"}
    assert Dataset(OLD.domains, "other").digest != OLD.digest


def test_accepting_a_proposal_gives_the_same_plan_byte_for_byte() -> None:
    new = dataset(web=400, code=200, math=100, news=50)
    before = make_plan(new, Accepted(BASE, OLD.digest, EMPTY).base_for(new, Reuse()), Reuse())
    proposal = accepted(new, {"web": 0.1, "code": 0.1, "math": 0.2, "news": 0.6})
    after = make_plan(new, Accepted(proposal, new.digest, before.base).base_for(new, Reuse()), Reuse())
    assert canonical_json(plan_to_json(after)) == canonical_json(plan_to_json(before))


def test_other_reuse_settings_start_from_the_accepted_mixture() -> None:
    held = Accepted(BASE, OLD.digest, EMPTY, Reuse())
    assert held.base_for(OLD, Reuse()) is EMPTY
    partial = Reuse(recompute=("web",))
    plan = make_plan(OLD, held.base_for(OLD, partial), partial)
    assert (plan.changes, plan.affected, plan.space.members) == ((), ("web",), {"code": 1 / 3, "math": 2 / 3})


def test_unchanged_domains_without_weight_have_no_ratios() -> None:
    base = accepted(OLD, {"web": 0.0, "code": 0.0, "math": 1.0})
    with pytest.raises(MixtureError, match=r"all have weight 0.*reuse: mode: none"):
        make_plan(dataset(web=400, code=200), base, Reuse())


def test_same_content_under_two_names_is_named() -> None:
    domains = {**OLD.domains, "copy": OLD.domains["web"]}
    assert make_plan(Dataset(domains, "tok"), BASE, Reuse()).duplicates == (("copy", "web"),)


def drifted_plan(**added: int) -> Plan:
    """A domain was revised, one drifted, and some were added."""
    new = dataset(web=400, code=220, math=101, **added)
    drifted = Domain(named_key("v3"), 101)
    domains = {**new.domains, "code": Domain(named_key("v2"), 220), "math": drifted}
    texts = [b"document %d: " % k + b"%d " % k * 20 for k in range(101)]
    known = {OLD.domains["math"].digest: texts[:100], drifted.digest: texts}
    sketches = {digest: sketch(sorted(t, key=document_digest), False, 10, True, 9999) for digest, t in known.items()}
    return make_plan(Dataset(domains, "tok"), BASE, Reuse(tolerance=0.02), sketches)


def test_plan_file_is_golden_and_reads_back() -> None:
    plan = drifted_plan(news=50)
    text = canonical_json(plan_to_json(plan))
    assert text == (GOLDEN / "plan.json").read_bytes()
    assert plan_from_json(json.loads(text), "plan.json") == plan


@given(st.permutations(["web", "code", "math", "news"]))
def test_order_of_declaration_does_not_matter(order: list[str]) -> None:
    tokens = {"web": 400, "code": 200, "math": 100, "news": 50}
    plan = make_plan(dataset(**{name: tokens[name] for name in order}), BASE, Reuse())
    assert plan_to_json(plan) == plan_to_json(make_plan(dataset(**tokens), BASE, Reuse()))


def sequence() -> list[dict[str, Any]]:
    folder = swarms_folder()
    content: list[dict[str, Any]] = json.loads((folder / "update-sequence.json").read_text())
    return content


def update_plans(mode: str) -> list[Plan]:
    """The paper's six versions, each planned from what the one before it left."""
    plans, base = [], EMPTY
    topics: dict[str, int] = {}
    for step in sequence():
        digests = {name: named_key(name) for name in step["domains"]}
        if step["step"] == 3:
            topics = {name: named_key(name) for name in sequence()[5]["domains"] if name.startswith("s2pdfv1:")}
        if "s2pdfv1" in digests:
            digests["s2pdfv1"] = total(topics.values())
        version = Dataset({n: Domain(digests[n], t, n.split(":")[0]) for n, t in step["domains"].items()})
        plan = make_plan(version, base, Reuse(mode))  # type: ignore[arg-type]
        plans.append(plan)
        base = accepted(version, version.natural)
    return plans


def test_update_sequence_of_the_paper() -> None:
    reused = [plan.dimensions for plan in update_plans("full")]
    full = [plan.dimensions for plan in update_plans("none")]
    assert reused == [24, 16, 7, 2, 0, 22]
    assert full == [24, 39, 45, 45, 44, 64]
    assert sum(swarm_size(d, 1) for d in reused) == 76
    assert sum(swarm_size(d, 1) for d in full) == 267
    kinds = [sorted({change.kind for change in plan.changes}) for plan in update_plans("full")]
    assert kinds == [["add"], ["add"], ["add"], ["add", "remove"], ["remove"], ["partition"]]


def test_capacity_is_set_by_one_scarce_member_in_the_paper() -> None:
    """At R = 1T and k = 4 the caps are 1.000, 0.975 and 0.955 at updates 2, 3 and 5 (their own accepted mixtures)."""
    steps = sequence()
    version = steps[1]
    published = version["published_mixture"]
    tokens = version["domains"]
    capacity = min(4 * tokens[n] / (1e12 * w) for n, w in published.items() if w > 0)
    assert math.isclose(min(1.0, capacity), 1.0, abs_tol=5e-4)
