"""What keeping the weight of a domain that changed costs: `python benchmarks/drift.py --domain docs`.

A fifth of a domain of the sample corpus is held back, a mixture is tuned for the rest, and then a share of the domain's
documents is exchanged for others that were held back: at random; the documents most like the tasks for those least
like them; or the other way round (by the log ratio of byte n-grams of the tasks and of the domain). The changed domain
is then recomputed, by a swarm of its own against the virtual domain, as a plan with `reuse.tolerance: 0` does, and both
mixtures, the old weights kept and the new ones, are trained on the new data with the same fresh seeds.

Tasks are the six that are quiet at this size, and repetition may be 16, so that no limit decides instead of the law.
It prints what the sketches say of each change, and by how much the recomputed mixture was better (BPB; positive is what
keeping costs) with its standard error over seeds. That error does not hold the luck of the one swarm behind a row: the
row without any change shows that. It shows nothing of larger proxies, nor of domains that change together.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.pool import Pool
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.virtual_domain import QUIET, documents, measure
from olmix.artifacts.evaluations import SwarmResults
from olmix.config.params import Params, load_params
from olmix.core.dataset import Dataset, Domain
from olmix.core.digest import document_digest, total
from olmix.core.mixture import Mixture, Share
from olmix.core.plan import EMPTY, Plan, Reuse, make_plan
from olmix.core.seeds import generator
from olmix.core.sketch import Sketch, drift_between, sketch
from olmix.core.virtual import VIRTUAL
from olmix.cores import cores
from olmix.data.sample import bytes_to_keep, write_sample
from olmix.data.tokenizer import Tokenizer
from olmix.data.tokensets import TokenSet, draw_virtual, open_token_sets, write_tokens
from olmix.project import Project
from olmix.proxy.recipe import Recipe
from olmix.proxy.tasks import EncodedTask, encode_task, read_task
from olmix.proxy.training import single_thread
from olmix.runs.record import RunSpec, spec_for, swarm_specs
from olmix.sample_corpus.build import SOURCES, build
from olmix.stages.fit import fit_laws
from olmix.stages.propose import propose

HELD_BACK = 0.2
# Four, as in params.yaml, pins the domain's weight: the virtual domain could not grow.
REPETITION = 16.0
SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
KINDS = ("random", "best for worst", "worst for best")


@dataclass(frozen=True)
class Version:
    """A dataset version with the token sets that proxies read, and sketches by domain."""

    dataset: Dataset
    sets: Mapping[str, TokenSet]
    sketches: Mapping[str, Sketch]


def version(texts: Mapping[str, Sequence[bytes]], folder: Path, tokenizer: Tokenizer, recipe: Recipe) -> Version:
    """Prepare domains from their documents."""
    domains, sketches = {}, {}
    for name, held in texts.items():
        ordered, size = sorted(held, key=document_digest), sum(map(len, held))
        sample = write_sample(folder / f"{name}.npy", ordered, False, True, tokenizer, recipe.tokens + 1)
        assert sample is not None
        tokens = sample.exact or sample.ratio.total(size)
        domains[name] = Domain(total(map(document_digest, ordered)), tokens)
        sketches[name] = sketch(ordered, False, size, True, bytes_to_keep(0))
    return Version(Dataset(domains), open_token_sets(folder, recipe.sequence_length), sketches)


def likeness(texts: Sequence[bytes], tasks: bytes) -> list[float]:
    """How much more each text is like the tasks than like its domain: the mean log ratio of hashed byte 4-grams."""

    def grams(text: bytes) -> np.ndarray:
        b = np.frombuffer(text, np.uint8).astype(np.uint32)
        return ((b[:-3] | b[1:-2] << 8 | b[2:-1] << 16 | b[3:] << 24) * np.uint32(2654435761)) >> np.uint32(18)

    def frequencies(text: bytes) -> np.ndarray:
        counts = np.bincount(grams(text), minlength=1 << 14) + 0.5
        return np.log(counts / counts.sum())

    ratio = frequencies(tasks) - frequencies(b"".join(texts))
    return [float(ratio[grams(text)].mean()) if len(text) > 3 else 0.0 for text in texts]


def exchanged(kept: Sequence[bytes], held_back: Sequence[bytes], tasks: bytes, kind: str, share: float) -> list[bytes]:
    """The domain with a share of its documents exchanged."""
    count = round(share * len(kept))
    if kind == "random":
        order = generator("drift", "out", len(kept)).permutation(len(kept))
        into = generator("drift", "in", len(held_back)).permutation(len(held_back))
    else:
        scores = np.array(likeness([*kept, *held_back], tasks))
        order, into = np.argsort(scores[: len(kept)], kind="stable"), np.argsort(scores[len(kept) :], kind="stable")
        order, into = (order, into[::-1]) if kind == "best for worst" else (order[::-1], into)
    gone = set(order[:count].tolist())
    return [text for i, text in enumerate(kept) if i not in gone] + [held_back[i] for i in into[:count]]


@dataclass(frozen=True)
class Swarm:
    """A plan's runs, before they are trained."""

    plan: Plan
    names: tuple[str, ...]
    weights: np.ndarray
    specs: list[RunSpec]


def swarm_of(params: Params, plan: Plan, sets: Mapping[str, TokenSet], recipe: Recipe, folder: Path) -> Swarm:
    """The swarm that the pipeline trains for a plan."""
    made = params.swarm_of(plan)
    if plan.space.members:
        drawn = draw_virtual(plan.space.members, sets, recipe.sequence_length, recipe.sequences)
        write_tokens(folder / f"{VIRTUAL}.npy", drawn)
        sets = {**sets, **open_token_sets(folder, recipe.sequence_length)}
    return Swarm(plan, made.runs, made.weights, swarm_specs(made, sets, recipe, params.proxy.seed))


def proposal(params: Params, swarm: Swarm, bpb: np.ndarray) -> dict[str, float]:
    """What the pipeline proposes from a swarm's measurements, (runs, tasks)."""
    weights, names = dict.fromkeys(QUIET, 1.0), QUIET
    results = SwarmResults(
        coordinates=swarm.plan.space.names,
        tasks=tuple(names),
        runs=swarm.names,
        named=frozenset(swarm.names),
        weights=swarm.weights,
        bpb=bpb,
        uniform=np.full(len(names), np.nan),
    )
    laws = fit_laws(results, swarm.names, weights, params.fit_settings()).laws
    target = replace(params.target_settings(), repetition=REPETITION)
    return propose(swarm.plan, laws, weights, target, params.solve.kl).mixture.weights


def train(pool: Pool, specs: Sequence[RunSpec], tasks: list[EncodedTask], what: str) -> np.ndarray:
    """BPB of runs, (runs, tasks)."""
    work = [(spec, tasks) for spec in specs]
    found = track(pool.imap(measure, work), f"{what}: {len(work)} runs", len(work), console=Console(stderr=True))
    return np.array(list(found))


def cases(shares: Sequence[float]) -> Iterator[tuple[str, float]]:
    """What is exchanged, and how much; first of all nothing."""
    yield "nothing", 0.0
    yield from ((kind, share) for kind in KINDS for share in shares)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domain", default="docs", choices=sorted(SOURCES), help="the domain that changes (docs)")
    parser.add_argument("--seeds", type=int, default=4, help="fresh seeds of each mixture (4)")
    parser.add_argument("--tokens", type=int, help="tokens a run (those of params.yaml)")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="shares to exchange")
    parser.add_argument("--data", type=Path, help="a sample corpus that is there already")
    arguments = parser.parse_args()
    params = load_params(Project())
    single = multiprocessing.get_context("forkserver")
    with tempfile.TemporaryDirectory() as temporary, single.Pool(cores(), single_thread) as pool:
        data, folder = arguments.data or Path(temporary) / "data", Path(temporary)
        build(data)
        tokenizer = Tokenizer(data / "tokenizer/tokenizer.json", params.tokenizer.end_of_document)
        recipe = params.recipe(tokenizer.vocabulary)
        recipe = replace(recipe, tokens=arguments.tokens) if arguments.tokens else recipe
        names = list(QUIET)
        items = {name: read_task(data / f"tasks/{name}.jsonl") for name in names}
        tasks = [encode_task(items[name], tokenizer, recipe.sequence_length) for name in names]
        about = b"\n".join((data / f"tasks/{name}.jsonl").read_bytes() for name in names)
        texts = {name: [text.encode() for text in documents(data / name)] for name in params.domains}
        # By chance, and not by hash: that would be a draw of the sketches.
        order = generator("drift", "held back").permutation(len(texts[arguments.domain])).tolist()
        whole = [texts[arguments.domain][i] for i in order]
        cut = round(HELD_BACK * len(whole))
        held_back, texts[arguments.domain] = whole[:cut], whole[cut:]

        old = version(texts, folder / "old", tokenizer, recipe)
        first = swarm_of(params, make_plan(old.dataset, EMPTY, Reuse()), old.sets, recipe, folder / "first")
        weights = proposal(params, first, train(pool, first.specs, tasks, "first swarm"))
        base = Mixture({n: Share(weights[n], d.tokens, d.digest) for n, d in old.dataset.domains.items()})

        swarms, versions = {}, {}
        for kind, share in cases(arguments.shares):
            place = folder / f"{kind} {share}"
            changed = exchanged(texts[arguments.domain], held_back, about, kind, share) if share else whole[cut:]
            new = version({**texts, arguments.domain: changed}, place / "tokens", tokenizer, recipe)
            plan = make_plan(new.dataset, base, Reuse(recompute=(arguments.domain,)))
            versions[kind, share] = new
            swarms[kind, share] = swarm_of(params, plan, new.sets, recipe, place / "virtual")
        bpb = train(pool, [spec for swarm in swarms.values() for spec in swarm.specs], tasks, "swarms")
        ends = np.cumsum([len(swarm.specs) for swarm in swarms.values()])[:-1]
        proposals = {
            case: proposal(params, swarm, part)
            for (case, swarm), part in zip(swarms.items(), np.split(bpb, ends), strict=True)
        }
        seeds = range(params.proxy.seed + 1, params.proxy.seed + 1 + arguments.seeds)
        pairs = [
            spec_for(name, mixture, versions[case].sets, recipe, seed)
            for case in swarms
            for name, mixture in (("kept", weights), ("recomputed", proposals[case]))
            for seed in seeds
        ]
        measured = train(pool, pairs, tasks, "outcomes").mean(axis=1)
        outcomes = dict(zip(swarms, measured.reshape(len(swarms), 2, len(seeds)), strict=True))

        old_sketch = old.sketches[arguments.domain]
        moves = {case: (weights[arguments.domain], mixture[arguments.domain]) for case, mixture in proposals.items()}
        sketches = {case: new.sketches[arguments.domain] for case, new in versions.items()}
        Console(width=120).print(table_of(old_sketch, sketches, moves, outcomes))


Case = tuple[str, float]


def table_of(
    old: Sketch,
    sketches: Mapping[Case, Sketch],
    moves: Mapping[Case, tuple[float, float]],
    outcomes: Mapping[Case, np.ndarray],
) -> Table:
    """What changed in each case, the domain's weight before and after, and the BPB of both mixtures, (2, seeds)."""
    table = Table("exchanged", "share", "changed", "n-grams moved", "weight", "kept", "recomputed", "cost of keeping")
    for case, (kept, recomputed) in outcomes.items():
        drift = drift_between(old, sketches[case])
        assert drift is not None
        assert drift.shift is not None
        difference = kept - recomputed
        error = statistics.stdev(difference) / len(difference) ** 0.5
        table.add_row(
            case[0],
            f"{case[1]:.1%}",
            f"{drift.changed:.1%} ± {drift.error:.1%}",
            f"{drift.shift:.1%} ± {drift.shift_error:.1%}",
            f"{moves[case][0]:.3f} -> {moves[case][1]:.3f}",
            f"{kept.mean():.4f}",
            f"{recomputed.mean():.4f}",
            f"{difference.mean():+.4f} ± {error:.4f}",
        )
    return table


if __name__ == "__main__":
    main()
