"""Drift: how much of a domain changed, from sketches, and when its weight is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmix.artifacts.plan_file import plan_from_json, plan_to_json, read_plan
from olmix.core.dataset import Dataset, Domain
from olmix.core.digest import document_digest, to_hex, total
from olmix.core.mixture import Mixture, Share
from olmix.core.plan import Accepted, Plan, Reuse, make_plan
from olmix.core.seeds import generator
from olmix.core.sketch import BUCKETS, DOCUMENTS, GROUPS, Drift, Sketch, drift_between, sketch
from olmix.data.sketches import read_sketches, sketch_from_json, sketch_to_json, write_sketches
from olmix.errors import DataError
from tests.project import Project, documents, write_shards

MUCH = 1 << 30


def sketch_of(texts: Sequence[bytes], most: int = MUCH, complete: bool = True) -> Sketch:
    return sketch(sorted(texts, key=document_digest), False, sum(map(len, texts)), complete, most)


def digest_of(texts: Sequence[bytes]) -> int:
    return total(map(document_digest, texts))


def texts_of(kind: str, count: int) -> list[bytes]:
    """Documents of words that the kind draws by its own frequencies, of 5 to 95 words."""
    draw = generator("drift", kind)
    words = [bytes(draw.integers(97, 123, size=5, dtype=np.uint8)) for _ in range(300)]
    shares = draw.dirichlet(np.full(300, 0.3))
    return [b" ".join(draw.choice(words, size=int(draw.integers(5, 96)), p=shares)) for _ in range(count)]


WEB, CODE = texts_of("web", 6000), texts_of("code", 2000)


def exact(old: Sequence[bytes], new: Sequence[bytes]) -> tuple[float, float]:
    """The shares of bytes that are new and gone, of documents that are all different."""
    before, after = set(old), set(new)
    return (
        sum(map(len, after - before)) / sum(map(len, after)),
        sum(map(len, before - after)) / sum(map(len, before)),
    )


@pytest.mark.parametrize("share", [0.0, 0.005, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("grown", [False, True])
def test_what_changed_is_estimated_within_its_error(share: float, grown: bool) -> None:
    count = round(share * 4000)
    new = [*WEB[0 if grown else count : 4000], *WEB[4000 : 4000 + count]]
    if share == 1:
        new = CODE
    drift = drift_between(sketch_of(WEB[:4000]), sketch_of(new))
    assert drift is not None
    added, lost = exact(WEB[:4000], new)
    assert abs(drift.new - added) < 3 * drift.new_error
    assert abs(drift.gone - lost) < 3 * drift.gone_error
    assert drift.changed == max(drift.new, drift.gone)
    assert drift.error < 0.02


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 60), st.booleans())
def test_small_domains_are_compared_document_by_document(gone: int, came: int, both: int, copies: bool) -> None:
    old, new = WEB[: gone + both], WEB[gone : gone + both + came]
    if copies:  # a document that stands twice is as much text again
        old, new = [*old, old[-1]], [*new, old[-1]]
    drift = drift_between(sketch_of(old), sketch_of(new))
    assert drift is not None
    assert drift.new == pytest.approx(sum(map(len, new[both : both + came])) / sum(map(len, new)), abs=1e-6)
    assert drift.gone == pytest.approx(sum(map(len, old[:gone])) / sum(map(len, old)), abs=1e-6)
    assert drift.new_error == drift.gone_error == 0


def test_shards_and_the_order_of_documents_do_not_matter_and_long_ones_are_bounded() -> None:
    one = sketch_of(WEB[:3000], most=20_000)
    assert 20_000 < one.sizes.sum() < 21_000
    assert not one.complete
    assert len(sketch_of(WEB[:3000]).hashes) == DOCUMENTS
    assert sketch_of(WEB[:500]).complete
    assert not sketch_of(WEB[:500], complete=False).complete
    drift = drift_between(one, sketch_of(WEB[:3000]))
    assert drift is not None
    assert drift.changed == 0 < drift.error


def test_a_long_document_that_no_sketch_holds_still_counts() -> None:
    long = b"x" * 1_000_000
    while document_digest(long) >> 120 < 200:
        long += b"x"
    drift = drift_between(sketch_of(WEB[:4000]), sketch_of([*WEB[:4000], long]))
    assert drift is not None
    size = sum(map(len, WEB[:4000]))
    assert drift.new == pytest.approx(len(long) / (size + len(long)))


def test_only_text_that_is_distributed_otherwise_shifts() -> None:
    old = sketch_of(WEB[:4000])

    def shift(new: Sequence[bytes]) -> Drift:
        drift = drift_between(old, sketch_of(new))
        assert drift is not None
        assert drift.shift is not None
        assert drift.shift_error is not None
        return drift

    for alike in (WEB[:2000], WEB[1000:5000], WEB[2000:]):
        drift = shift(alike)
        assert drift.shift < 2.5 * drift.shift_error
        assert drift.shift < 0.1
    moved = [shift([*WEB[: 4000 - count], *CODE[:count]]) for count in (400, 800, 1600)]
    assert all(drift.shift > 3 * drift.shift_error for drift in moved)
    # In proportion to what was exchanged: a root mean square, not its square.
    assert moved[2].shift / moved[0].shift == pytest.approx(4, rel=0.3)


def test_ids_and_text_do_not_compare_and_little_text_has_no_distribution() -> None:
    ids = sketch([np.arange(9, dtype="<u4").tobytes()], True, 9, True, MUCH)
    assert ids.sizes.tolist() == [9]
    assert drift_between(ids, sketch_of(WEB[:5])) is None
    drift = drift_between(sketch_of([b"a"]), sketch_of([b"a", b"b"]))
    assert drift is not None
    assert drift.new == pytest.approx(0.5)
    assert drift.shift is None


def test_a_sketch_reads_back_and_a_damaged_one_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "sketches.jsonl"
    kept = {digest_of(texts): replace(sketch_of(texts), sample="5a") for texts in (WEB[:2000], CODE, WEB[:3])}
    write_sketches(path, kept, [*kept, 12345])
    read = read_sketches(path)
    assert read.keys() == kept.keys()
    for digest, one in kept.items():
        assert sketch_to_json(read[digest]) == sketch_to_json(one)
        assert drift_between(read[digest], one) == replace(drift_between(one, one), same_sample=True)  # type: ignore[type-var]
    # Two branches' files, as git's union merge leaves them.
    path.write_bytes(b"".join(reversed(path.read_bytes().splitlines(keepends=True))) * 2)
    assert read_sketches(path).keys() == kept.keys()
    content = sketch_to_json(sketch_of(WEB[:20]))
    for damage in ({"hashes": "AAAA"}, {"total": 0}, {"profile": content["sizes"]}, {"sizes": "/" * 108 + "=="}):
        with pytest.raises(DataError, match=r"f.json: sketch: not a sketch of a domain; restore"):
            sketch_from_json({**content, **damage}, Path("f.json"), "sketch")
    for line in (b"<<<<<<< HEAD\n", b"[]\n", b'{"digest": "1"}\n'):
        path.write_bytes(line)
        with pytest.raises(DataError, match=r"sketches.jsonl: line 1: not a"):
            read_sketches(path)


# Plans


def version(**texts: Sequence[bytes]) -> tuple[Dataset, dict[int, Sketch]]:
    domains = {name: Domain(digest_of(part), len(part) * 10) for name, part in texts.items()}
    return Dataset(domains, "tok"), {domains[name].digest: sketch_of(part) for name, part in texts.items()}


def accepted(dataset: Dataset, plan: Plan, reuse: Reuse) -> Accepted:
    """What accepting the base carried over would write."""
    origins = plan.measured_on
    shares = {
        name: Share(plan.carried[name], domain.tokens, domain.digest, origins[name])
        for name, domain in dataset.domains.items()
    }
    return Accepted(Mixture(shares, dataset.tokenizer), dataset.digest, plan.base, reuse)


FIRST, KNOWN = version(web=WEB[:4000], code=CODE)
START = Mixture({n: Share(0.5, d.tokens, d.digest) for n, d in FIRST.domains.items()}, "tok")
REUSE = Reuse(tolerance=0.03)


def test_little_drift_keeps_the_weight_and_more_does_not() -> None:
    new, sketches = version(web=WEB[40:4040], code=CODE)
    plan = make_plan(new, START, REUSE, KNOWN | sketches)
    assert [(change.kind, change.domains) for change in plan.changes] == [("drift", ("web",))]
    assert plan.affected == ()
    assert plan.drifted == ("web",)
    assert plan.measured_on == {"code": FIRST.domains["code"].digest, "web": FIRST.domains["web"].digest}
    assert plan_from_json(plan_to_json(plan), "plan") == plan
    new, sketches = version(web=WEB[400:4400], code=CODE)
    plan = make_plan(new, START, REUSE, KNOWN | sketches)
    assert plan.affected == ("web",)
    assert plan.measured_on["web"] == new.domains["web"].digest


def test_no_drift_is_kept_at_tolerance_0_without_sketches_or_under_another_tokeniser() -> None:
    new, sketches = version(web=WEB[1:4001], code=CODE)
    known = KNOWN | sketches
    assert make_plan(new, START, REUSE, known).drifted == ("web",)
    for reuse in (Reuse(), replace(REUSE, mode="none"), replace(REUSE, recompute=("web",))):
        plan = make_plan(new, START, reuse, known)
        assert "web" in plan.affected
        assert plan.changes[0].kind == "revise"
    assert make_plan(new, START, REUSE, KNOWN).affected == ("web",)
    assert make_plan(new, START, REUSE).affected == ("web",)
    assert make_plan(replace(new, tokenizer="other"), START, REUSE, known).affected == ("code", "web")


def test_small_steps_add_up_until_the_weight_is_measured_anew() -> None:
    known, state, reuse = dict(KNOWN), Accepted(START), REUSE
    recomputed = []
    for step in range(1, 9):
        new, sketches = version(web=WEB[step * 40 : 4000 + step * 40], code=CODE)
        known |= sketches
        plan = make_plan(new, state.base_for(new, reuse), state.reuse_for(new, reuse), known)
        state = accepted(new, plan, reuse)
        # Accepting changes nothing of the plan, and neither does another tolerance until the data changes.
        for other in (reuse, replace(reuse, tolerance=0.5), replace(reuse, tolerance=0)):
            again = make_plan(new, state.base_for(new, other), state.reuse_for(new, other), known)
            assert plan_to_json(again) == plan_to_json(plan)
        if plan.affected:
            recomputed.append(step)
    assert len(recomputed) in (2, 3), "1% a step, tolerance 3%"
    assert recomputed[0] in (3, 4)


def test_a_domain_that_drifted_is_recomputed_when_the_tolerance_falls_at_the_next_change() -> None:
    new, sketches = version(web=WEB[80:4080], code=CODE)
    plan = make_plan(new, START, REUSE, KNOWN | sketches)
    state = accepted(new, plan, REUSE)
    later, more = version(web=WEB[80:4080], code=CODE[:1000])
    known = KNOWN | sketches | more
    for reuse, affected in ((REUSE, ("code",)), (replace(REUSE, tolerance=0.005), ("code", "web"))):
        assert make_plan(later, state.base_for(later, reuse), reuse, known).affected == affected


def test_a_renamed_domain_drifts_on_from_where_its_weight_was_measured() -> None:
    new, sketches = version(web=WEB[80:4080], code=CODE)
    state = accepted(new, make_plan(new, START, REUSE, KNOWN | sketches), REUSE)
    later, more = version(pages=WEB[80:4080], code=CODE)
    plan = make_plan(later, state.base_for(later, REUSE), REUSE, KNOWN | sketches | more)
    assert plan.affected == ()
    assert plan.measured_on["pages"] == FIRST.domains["web"].digest


def test_by_distribution_documents_dropped_at_random_are_no_drift() -> None:
    half, sketches = version(web=WEB[:2000], code=CODE)
    known = KNOWN | sketches
    assert make_plan(half, START, replace(REUSE, tolerance=0.1), known).affected == ("web",)
    by_distribution = Reuse(tolerance=0.1, drift_by="distribution")
    assert make_plan(half, START, by_distribution, known).drifted == ("web",)
    other, more = version(web=[*WEB[:3000], *CODE[:1000]], code=CODE)
    assert make_plan(other, START, by_distribution, known | more).affected == ("web",)


def test_a_domain_is_kept_for_one_change() -> None:
    new, sketches = version(web=CODE[:1000], code=CODE)
    keep = Reuse(keep=(("web", to_hex(new.domains["web"].digest)[:12]),))
    plan = make_plan(new, START, keep, KNOWN | sketches)
    assert plan.drifted == ("web",)
    assert make_plan(new, START, keep).drifted == ("web",), "it needs no sketch"
    later, more = version(web=CODE[:1100], code=CODE)
    assert make_plan(later, START, keep, KNOWN | sketches | more).affected == ("web",)


@pytest.mark.slow
def test_a_release_of_200_cells_that_each_grow_a_little_costs_nothing() -> None:
    drawn = generator("cells").integers(0, 6000, size=(200, 251))
    cells = {f"cell-{k:03d}": [WEB[i] + b" %d" % k for i in row] for k, row in enumerate(drawn.tolist())}
    old, before = version(**{name: texts[:250] for name, texts in cells.items()})
    new, now = version(**cells)
    base = Mixture({name: Share(1 / 200, d.tokens, d.digest) for name, d in old.domains.items()}, "tok")
    plan = make_plan(new, base, Reuse(tolerance=0.02), before | now)
    assert plan.dimensions == 0
    assert len(plan.drifted) == 200


# A project


def exchange(project: Project, name: str, count: int) -> None:
    """Exchange the first documents of a domain of 120 for others of its kind."""
    write_shards(project.root / f"data/{name}", [*documents(name)[count:], *documents(name, count, version=1)])


def test_a_drifted_domain_trains_nothing_until_steps_add_up(accepted: Project) -> None:
    params = accepted.params
    params["reuse"]["tolerance"] = 0.04
    accepted.params = params
    weights, before = accepted.weights("accepted"), accepted.mixture("accepted")["domains"]["web"]
    exchange(accepted, "web", 3)
    told = accepted.olmix("plan")
    assert "≈ web  drifted" in told.out
    assert "2.4% ± 0.0% of its text is new, 2.5% ± 0.0% is gone; distributed as before" in told.out
    said = accepted.plan()
    assert said["runs"] == said["validation_runs"] == 0
    assert said["changes"][0]["kind"] == "drift"
    assert said["drifted"] == [{"domain": "web", "changed": pytest.approx(0.025, abs=0.002), "error": 0, "kept": True}]
    assert said["changes"][0]["changed"] == said["drifted"][0]["changed"]

    ran = accepted.repro()
    assert ran.done("train") == 0
    proposed = accepted.mixture("proposed")
    assert proposed["domains"]["web"]["measured_on"] == before["digest"] != proposed["domains"]["web"]["digest"]
    assert proposed["plan"]["drifted"]["web"] == {"changed": pytest.approx(0.025, abs=0.002), "error": 0}
    assert accepted.weights("proposed") == pytest.approx(weights, abs=1e-5)
    assert ran.done("validate") == 0
    assert "~ web" not in accepted.olmix("diff").out
    assert "drifted 2.5%" in accepted.olmix("diff").out
    assert "Not measured: domains only drifted" in accepted.olmix("show").out
    measured = accepted.mixture("accepted")["measured"]
    accepted.olmix("accept")
    assert accepted.mixture("accepted")["measured"] == measured
    assert accepted.repro().stages == ["plan"]
    accepted.commit("drifted")

    # As much again, but counted from the version that the weight was measured on.
    exchange(accepted, "web", 6)
    said = accepted.plan()
    assert said["affected"] == ["web"]
    assert said["changes"][0]["kind"] == "revise"
    assert said["changes"][0]["changed"] == pytest.approx(0.05, abs=0.004)
    assert said["drifted"][0]["kept"] is False

    # What the command line overrules, params.yaml does as it says.
    kept = accepted.olmix("plan", "--keep", "web").out
    assert "Runs: 0 in the swarm" in kept
    line = kept.split("write `")[1].split("`")[0]
    text = (accepted.root / "params.yaml").read_text().replace("keep: {}\n", line.split(", recompute")[0] + "\n")
    accepted.write("params.yaml", text)
    assert accepted.plan()["runs"] == 0
    assert json.loads(accepted.olmix("plan", "--json", "--recompute", "web").out)["affected"] == ["web"]
    ran = accepted.command("olmix", "plan", "--keep", "nope")
    assert ran.err == "error: --keep: no domain nope; the domains are code, junk, math, web\n"


def test_the_same_documents_make_the_same_sketch(accepted: Project) -> None:
    before = accepted.json("build/manifests/web.json")
    sketch_before = sketch_from_json(before["sketch"], Path("web.json"), "sketch")
    assert sketch_before.complete
    assert sketch_before.profile.shape == (GROUPS, BUCKETS)
    assert sketch_before.sample == before["sample"]["identity"]
    write_shards(accepted.root / "data/web", documents("web")[::-1], shards=3)
    accepted.repro()
    assert accepted.json("build/manifests/web.json")["sketch"] == before["sketch"]


def test_a_plan_of_an_earlier_version_is_built_again_and_never_a_traceback(accepted: Project) -> None:
    path = accepted.root / "build/plan.json"
    content = accepted.json("build/plan.json")
    del content["drifts"]
    path.chmod(0o644)
    path.write_text(json.dumps(content))
    assert ", plan, propose, swarm, " in accepted.olmix("plan").out
    with pytest.raises(
        DataError, match=r"not a plan of this version of olmix \(KeyError: 'drifts'\); run `dvc repro -f"
    ):
        read_plan(accepted.places)
    accepted.expect("dvc", "repro", "-f", "plan")
    assert accepted.plan()["stale"] == []
