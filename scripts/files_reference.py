"""docs/files.md: the fields of the files that a person or a script reads.

Their writers have no models to generate this from, so the tables stand here. `problems` holds them against files that
were really written, in both directions, and a test calls it: a field that a writer adds, renames or drops is found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HEAD = """# Reference of files

Every field of the files that a person or a script reads. The tables are held against files that were really written
by a test. `<domain>` stands for a name, `[]` for each element of a list. BPB is bits per byte, lower is better; a
standard error is null where there is only one value; in JSON, a value that is not a number is null. A digest is
hexadecimal. A field that is not always there says when it is.

The tables that you write for `olmix fit` are described in [its guide](fit.md), the keys of params.yaml and
runtime.yaml in [their reference](params.md), commands and exit codes in [theirs](commands.md).
"""


@dataclass(frozen=True)
class Field:
    """A field: dotted keys, what it is, and when it is there (always, if nothing is said)."""

    key: str
    what: str
    only: str = ""


@dataclass(frozen=True)
class File:
    """A kind of file: the paths it has in a project, what it is, and its fields."""

    paths: str
    what: str
    fields: tuple[Field, ...]


# When a field is there.
PROJECT, TABLES, TARGET = "in a project", "under `olmix fit`", "with a target"
ACCEPTED, MEASURED = "in `accepted.yaml`", "in `accepted.yaml`, if it was measured"
STARTED, FITTED = "in `accepted.yaml`, if there was one", "in a project, when something was fitted"
CHOSEN, PROPOSED = "with the law `auto`", "under `olmix fit` with `--priors`"
DRIFTED = "where a domain drifted"
OLDER, CURVE = "with `--also`", "with `--curve`"

MIXTURE = File(
    "mixtures/proposed.yaml, mixtures/accepted.yaml, fit/mixture.yaml",
    "A mixture: of the pipeline (`dvc repro`), of `olmix accept`, of `olmix fit`. One that you write yourself needs "
    "`domains` with weight, tokens and digest, and nothing else.",
    (
        Field("dataset", "Digest of the dataset version that the mixture is of."),
        Field("tokenizer", "Digest of the tokeniser that tokens were counted with.", PROJECT),
        Field("domains.<domain>.weight", "Share of the target run's tokens, a multiple of 1e-6; they sum to 1."),
        Field("domains.<domain>.tokens", "Tokens that the domain holds."),
        Field("domains.<domain>.repetition", "How often the target run reads the domain.", TARGET),
        Field("domains.<domain>.capped", "Whether the repetition limit binds."),
        Field("domains.<domain>.digest", "Digest of the domain's documents; of its name and tokens under `olmix fit`."),
        Field(
            "domains.<domain>.measured_on",
            "Digest of the documents that the weight was measured on; another one where the domain drifted since.",
        ),
        Field(
            "predicted.<mixture>.bpb",
            "What the law predicts for the proposal, for what its gain is over (natural, carried, reference), and for "
            "the best mixture without limits (unconstrained).",
            "when something was fitted",
        ),
        Field(
            "predicted.<mixture>.standard_error",
            "Its deviation over bootstrap replicates: the runs' noise, not the law's error.",
            "when something was fitted",
        ),
        Field("certificate.gap", "Duality gap: no feasible mixture lowers the objective by more.", "of a convex law"),
        Field("certificate.iterations", "Iterations of the solver.", "of a convex law"),
        Field("certificate.searched", "Mixtures that the search scored; there is no gap.", "of a law that is searched"),
        Field("certificate.kl_weight", "lambda, the weight of the KL term.", "when something was solved"),
        Field("certificate.kl_to_natural", "KL(mixture || natural), in nats.", PROJECT),
        Field("certificate.kl_to_reference", "KL(mixture || reference), in nats.", TABLES),
        Field(
            "certificate.cap_prices.<domain>",
            "What the objective would fall by, per unit of share, if the limit of the domain rose.",
            "in a project, where limits bind",
        ),
        Field("law", "The law that was fitted.", TABLES),
        Field("fit", "Digest of law and objective: predictions compare only where it is the same.", TABLES),
        Field("reference.<domain>", "The mixture that the KL term pulls to.", TABLES),
        Field("trust.law", "The law that was fitted.", FITTED),
        Field("trust.fit", "Digest of law and objective: predictions compare only where it is the same.", FITTED),
        Field("trust.gain.over", "The mixture that the predicted gain is over: natural or carried.", FITTED),
        Field("trust.gain.bpb", "The predicted gain, in BPB.", FITTED),
        Field("trust.gain.standard_error", "Its deviation over bootstrap replicates.", FITTED),
        Field("trust.gain.low", "5th percentile over the replicates.", FITTED),
        Field("trust.gain.high", "95th percentile.", FITTED),
        Field("trust.doubts", "What speaks against believing the prediction.", FITTED),
        Field("trust.mirage", "Whether it beats every run by more than the out-of-fold error.", FITTED),
        Field("trust.nearest_run", "Total variation to the nearest run.", FITTED),
        Field("trust.leverage", "Leverage of the proposal on the runs.", FITTED),
        Field("trust.largest_leverage_of_a_run", "The largest leverage of a run.", FITTED),
        Field("trust.outside_of_the_runs", "How much of it lies in directions that no run varies.", FITTED),
        Field("trust.moved_by_resampling", "Median total variation to the proposals of resamples.", FITTED),
        Field("trust.other_laws.<law>.bpb", "What another law predicts for the proposal.", FITTED),
        Field("trust.other_laws.<law>.gain", "The gain that it predicts.", FITTED),
        Field("trust.other_laws.<law>.distance", "Total variation to that law's own proposal.", FITTED),
        Field("target.tokens", "R, the tokens of the target run.", TARGET),
        Field("target.repetition", "k, the repetition limit.", TARGET),
        Field("plan.affected", "Domains that were recomputed.", PROJECT),
        Field("plan.unchanged", "Domains that kept their proportions.", PROJECT),
        Field(
            "plan.drifted.<domain>.changed",
            "Domains that kept their proportions though they changed: the share of their text that is another than "
            "when the weight was measured.",
            DRIFTED,
        ),
        Field("plan.drifted.<domain>.error", "Its standard error.", DRIFTED),
        Field("measured.bpb", "Mean BPB that was measured.", MEASURED),
        Field("measured.standard_error", "Its standard error over seeds.", f"{MEASURED} with two seeds or more"),
        Field("measured.gain_over_<mixture>", "How much better it was measured than that mixture.", MEASURED),
        Field("measured.gain_over_<mixture>_standard_error", "Standard error of the gain.", MEASURED),
        Field("measured.seeds", "Seeds that were measured.", MEASURED),
        Field("reuse.mode", "`reuse.mode` that the proposal was planned with.", ACCEPTED),
        Field("reuse.recompute", "`reuse.recompute` likewise.", ACCEPTED),
        Field("reuse.tolerance", "`reuse.tolerance` likewise.", ACCEPTED),
        Field("reuse.drift_by", "`reuse.drift_by` likewise.", ACCEPTED),
        Field("reuse.keep.<domain>", "`reuse.keep` likewise.", ACCEPTED),
        Field("base.tokenizer", "The tokeniser of the mixture that it was planned from.", ACCEPTED),
        Field("base.domains.<domain>.weight", "That mixture's weights.", STARTED),
        Field("base.domains.<domain>.tokens", "Its tokens.", STARTED),
        Field("base.domains.<domain>.digest", "Its digests.", STARTED),
        Field("base.domains.<domain>.measured_on", "The digests that its weights were measured on.", STARTED),
    ),
)
PLAN = File(
    "build/plan.json",
    "The plan that the pipeline ran. `olmix plan --json` is a plan of the data as it is now, with what it costs.",
    (
        Field("dataset.digest", "Digest of the dataset version."),
        Field("dataset.tokenizer", "Digest of the tokeniser; null when planned from files."),
        Field("domains.<domain>.digest", "Digest of the domain's documents."),
        Field("domains.<domain>.tokens", "Tokens that it holds."),
        Field("domains.<domain>.source", "The source that it is a topic of; null without one."),
        Field("base.domains.<domain>.weight", "Weights of the mixture that the plan starts from; empty at first."),
        Field("base.domains.<domain>.tokens", "Its tokens."),
        Field("base.domains.<domain>.digest", "Its digests."),
        Field("base.domains.<domain>.measured_on", "The digests that its weights were measured on."),
        Field("base.tokenizer", "Its tokeniser."),
        Field("changes[].kind", "add, remove, revise, drift, rename, partition or merge."),
        Field("changes[].domains", "The domains concerned; of a removal those that are gone."),
        Field("changes[].from", "The domains that they came from."),
        Field("affected", "Domains that are recomputed."),
        Field("virtual.members.<domain>", "Frozen proportions within the virtual domain; null when it is empty."),
        Field("carried.<domain>", "The base on today's domains: what you would train on if you did nothing."),
        Field("duplicates", "Groups of domains that hold the same documents."),
        Field("drifts.<domain>.new", "Share of the domain's text that it did not have when its weight was measured."),
        Field("drifts.<domain>.new_error", "Its standard error; 0 where every document was compared."),
        Field("drifts.<domain>.gone", "Share of the text of then that it has no more."),
        Field("drifts.<domain>.gone_error", "Its standard error."),
        Field("drifts.<domain>.shift", "Root mean square of the relative change of n-gram frequencies."),
        Field("drifts.<domain>.shift_error", "Its standard error; null, as the shift, where little text was compared."),
        Field("drifts.<domain>.same_sample", "Whether proxies read the very same tokens."),
    ),
)
VALIDATION = File(
    "build/validation.json",
    "What was measured: the proposal, `natural`, `uniform`, and `carried` where there is an accepted mixture. `{}` is "
    "written with `validate.seeds: 0`.",
    (
        Field("<mixture>.mean_bpb", "Weighted mean of the tasks' BPB, over seeds."),
        Field("<mixture>.standard_error", "Its standard error over seeds."),
        Field("<mixture>.seeds", "The seeds."),
        Field("<mixture>.by_seed", "Mean BPB of each seed, in that order."),
        Field("<mixture>.weights.<domain>", "The mixture that was trained."),
        Field("<mixture>.tasks.<task>", "BPB of each task, the mean over seeds."),
        Field(
            "<mixture>.gain_of_proposal.bpb",
            "How much better the proposal is: the mean of differences at the same seed.",
            "of the others",
        ),
        Field("<mixture>.gain_of_proposal.standard_error", "Its standard error.", "of the others"),
        Field("<mixture>.gain_of_proposal.relative", "The gain over this mixture's BPB.", "of the others"),
    ),
)
DIAGNOSTICS = File(
    "build/fit/diagnostics.json, fit/diagnostics.json",
    "How far to trust a fit, the pipeline's and that of `olmix fit`. Correlations and errors are out of fold: of runs "
    "that the law was not fitted on.",
    (
        Field("law", "The law that was fitted."),
        Field("tasks.<task>.loss", "Mean Huber loss over the runs it was fitted on; null for a law without one."),
        Field("tasks.<task>.spearman", "Rank correlation of prediction and measurement."),
        Field("tasks.<task>.pearson", "Linear correlation."),
        Field("tasks.<task>.rmse", "Root mean square error, in BPB."),
        Field("tasks.<task>.coefficient_norm", "Norm of the law's parameters; null for a law without them."),
        Field("tasks.<task>.noise", "Deviation of a run about its mixture's mean; null where nothing was repeated."),
        Field("tasks.<task>.lowest_bpb", "The best run's BPB."),
        Field("tasks.<task>.highest_bpb", "The worst run's BPB."),
        Field("tasks.<task>.uniform_model_bpb", "BPB of a model that knows nothing.", PROJECT),
        Field("mean.spearman", "The same of the weighted mean of the tasks."),
        Field("mean.pearson", "Linear correlation."),
        Field("mean.rmse", "Root mean square error, in BPB."),
        Field("design.rank", "Numeric rank of the mixtures."),
        Field("design.coordinates", "Columns that the law has."),
        Field("design.condition", "Ratio of their largest to their smallest singular value."),
        Field("never_sampled", "Domains that no run holds: their part of the law is not from data."),
        Field("repeats.distinct", "Distinct mixtures."),
        Field("repeats.runs", "Runs of the newest swarm."),
        Field("repeats.degrees_of_freedom", "Degrees of freedom behind the noise."),
        Field("runs.used", "Runs that were used."),
        Field("runs.missing", "Runs of the swarm that are not there.", PROJECT),
        Field("runs.set_aside[].run", "A run that lacks a metric which is used.", TABLES),
        Field("runs.set_aside[].missing", "The metrics that it lacks.", TABLES),
        Field("unlearned_tasks", "Tasks that no run does better on than a model that knows nothing.", PROJECT),
        Field("warnings", "The warnings that the stage printed.", PROJECT),
        Field("choice.law", "The law that `auto` chose.", CHOSEN),
        Field("choice.reference", "The law that it is compared with.", CHOSEN),
        Field("choice.margin", "How far its score is ahead.", CHOSEN),
        Field("choice.standard_error", "Standard error of the margin over resamples of the runs.", CHOSEN),
        Field("choice.confidence", "Share of resamples in which it is ahead.", CHOSEN),
        Field("choice.laws.<law>.score", "Score of each law on unseen runs; higher is better.", CHOSEN),
        Field("choice.laws.<law>.spearman", "Mean rank correlation of the tasks.", CHOSEN),
        Field("choice.laws.<law>.mean_spearman", "Rank correlation of their mean.", CHOSEN),
        Field("older_swarms[].runs", "Runs of an older swarm.", OLDER),
        Field("older_swarms[].weight", "How much each of them counts; 0 when it was left out.", OLDER),
        Field("older_swarms[].offset", "Whether it is off by a constant per task.", OLDER),
        Field("older_swarms[].offsets.<task>", "The constants, in BPB; null without them.", OLDER),
        Field("older_swarms[].tried[].weight", "A weight that was tried.", OLDER),
        Field("older_swarms[].tried[].offset", "With constants or without.", OLDER),
        Field("older_swarms[].tried[].score", "Its score on the newest swarm.", OLDER),
        Field("task_weights.<task>", "Weights of the tasks, of sum 1.", TABLES),
        Field("proposal.weights.<domain>.weight", "Share that is proposed.", PROPOSED),
        Field("proposal.weights.<domain>.low", "5th percentile over resamples of the runs.", PROPOSED),
        Field("proposal.weights.<domain>.high", "95th percentile.", PROPOSED),
        Field("proposal.weights.<domain>.unconstrained", "Share if tokens were free.", PROPOSED),
        Field("proposal.weights.<domain>.capped", "Whether the limit binds.", PROPOSED),
        Field("proposal.weights.<domain>.price", "What a higher limit is worth, in BPB per unit of share.", PROPOSED),
        Field("proposal.predicted.<mixture>.bpb", "Predicted mean BPB.", PROPOSED),
        Field("proposal.predicted.<mixture>.standard_error", "Its deviation over resamples.", PROPOSED),
        Field("proposal.predicted.<mixture>.low", "5th percentile.", PROPOSED),
        Field("proposal.predicted.<mixture>.high", "95th percentile.", PROPOSED),
        Field("proposal.gain.bpb", "Predicted gain over the reference, in BPB.", PROPOSED),
        Field("proposal.gain.standard_error", "Its deviation over resamples.", PROPOSED),
        Field("proposal.gain.low", "5th percentile.", PROPOSED),
        Field("proposal.gain.high", "95th percentile.", PROPOSED),
        Field("proposal.moved", "Median total variation to the proposals of resamples.", PROPOSED),
        Field("proposal.laws.<law>.bpb", "What another law predicts for the proposal.", PROPOSED),
        Field("proposal.laws.<law>.gain", "The gain that it predicts.", PROPOSED),
        Field("proposal.laws.<law>.distance", "Total variation to that law's own proposal.", PROPOSED),
        Field("proposal.leverage.proposal", "Leverage of the proposal on the runs.", PROPOSED),
        Field("proposal.leverage.largest_of_a_run", "The largest leverage of a run.", PROPOSED),
        Field("proposal.leverage.unsupported", "How much lies in directions that no run varies.", PROPOSED),
        Field("proposal.nearest_run.run", "The nearest run.", PROPOSED),
        Field("proposal.nearest_run.total_variation", "Total variation to it.", PROPOSED),
        Field("proposal.mirage.alarm", "Whether it beats every run by more than the error.", PROPOSED),
        Field("proposal.mirage.best_run", "The best run.", PROPOSED),
        Field("proposal.mirage.best_bpb", "Its mean BPB.", PROPOSED),
        Field("proposal.mirage.out_of_fold_rmse", "The error.", PROPOSED),
        Field("proposal.certificate.gap", "Duality gap; null for a law that is searched.", PROPOSED),
        Field("proposal.certificate.steps", "Iterations, or mixtures that were scored.", PROPOSED),
        Field("proposal.doubts", "What speaks against believing it.", PROPOSED),
        Field("curves.<law>.points[].runs", "Runs that the law was fitted on.", CURVE),
        Field("curves.<law>.points[].spearman", "Mean rank correlation of the tasks, held out.", CURVE),
        Field("curves.<law>.points[].spearman_error", "Its standard error.", CURVE),
        Field("curves.<law>.points[].mean_spearman", "Rank correlation of their mean.", CURVE),
        Field("curves.<law>.points[].mean_spearman_error", "Its standard error.", CURVE),
        Field("curves.<law>.amplitude", "A of 1 - A n^-a, which the curve goes on as after n runs.", CURVE),
        Field("curves.<law>.rate", "a of it.", CURVE),
    ),
)
FILES = (MIXTURE, PLAN, VALIDATION, DIAGNOSTICS)


def render() -> str:
    """The text of docs/files.md."""
    parts = [HEAD]
    for file in FILES:
        parts += [f"## {file.paths}\n", f"{file.what}\n", "| field | what it is |", "|---|---|"]
        for field in file.fields:
            note = f" *Only {field.only}.*" if field.only else ""
            parts.append(f"| `{field.key}` | {field.what.replace('||', '‖')}{note} |")
        parts.append("")
    return "\n".join(parts)


def problems(file: File, contents: Mapping[str, Any]) -> Iterator[str]:
    """What the table of `file` says wrongly of files of its kind, `contents` by their names."""
    keys = {name: list(_keys(content)) for name, content in contents.items()}
    patterns = {field: [_pattern(part) for part in _split(field.key)] for field in file.fields}
    for name, found in keys.items():
        for key, empty in found:
            if not any(_fits(key, empty, pattern) for pattern in patterns.values()):
                yield f"{name} holds {'.'.join(key)}, of which scripts/files_reference.py knows nothing"
        for field, pattern in patterns.items():
            if not field.only and not any(_fits(key, empty, pattern) for key, empty in found):
                yield f"{name} holds no {field.key}; scripts/files_reference.py says that it always does"
    for field, pattern in patterns.items():
        if field.only and not any(_fits(key, False, pattern) for found in keys.values() for key, _ in found):
            yield f"{field.key}, of which scripts/files_reference.py knows, is in none of {', '.join(keys)}"


def _keys(content: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Every key of a file down to its values, and whether nothing is there: null, or a mapping or list of nothing."""
    if isinstance(content, dict) and content:
        for key, child in content.items():
            yield from _keys(child, (*at, str(key)))
    elif isinstance(content, list) and content and isinstance(content[0], dict):
        for child in content:
            yield from _keys(child, (*at, "[]"))
    else:
        yield at, content in (None, {}, [])


def _split(key: str) -> list[str]:
    return key.replace("[]", ".[]").split(".")


def _pattern(part: str) -> re.Pattern[str]:
    return re.compile(
        "".join(".+" if piece.startswith("<") else re.escape(piece) for piece in re.split(r"(<\w+>)", part))
    )


def _fits(key: Sequence[str], empty: bool, pattern: Sequence[re.Pattern[str]]) -> bool:
    """Whether a key of a file is the field, or, with nothing there, what the field would lie in."""
    if len(key) != len(pattern) and not (empty and len(key) < len(pattern)):
        return False
    return all(part.fullmatch(name) for name, part in zip(key, pattern, strict=False))
