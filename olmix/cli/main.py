"""The command line. Every command parses, calls the library, and prints."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from olmix import __version__
from olmix.errors import OlmixError
from olmix.files import canonical_json, require_folder
from olmix.project import Project
from olmix.terminal.exits import OK, SOMETHING_TO_DO, run
from olmix.terminal.steps import Steps

if TYPE_CHECKING:
    from olmix.config.fit_options import FitOptions

EXIT_CODES = "Exit codes: 0 done, 1 an error (one line on standard error), 130 interrupted."


@click.group(epilog=EXIT_CODES)
@click.option(
    "-C", "root", metavar="DIR", type=click.Path(path_type=Path), default=".", help="Work as if started in DIR."
)
@click.version_option(__version__, message="olmix %(version)s")
@click.pass_context
def cli(context: click.Context, root: Path) -> None:
    """Data mixtures as build artefacts: declare domains in params.yaml, run dvc repro, review the mixture as a diff."""
    context.obj = Project(root)


class _File(click.Path):
    """A path, from the folder that -C names."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        project = ctx.find_object(Project) if ctx else None
        return (project or Project()).root / str(super().convert(value, param, ctx))


FILE = _File()

_TABLE_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("ratios", type=FILE, required=False),
    click.argument("metrics", type=FILE, required=False),
    click.option("--config", type=FILE, help="YAML file with these options as keys."),
    click.option("--priors", type=FILE, help="JSON or YAML: {relative_sizes, token_counts}, or tokens by domain."),
    click.option(
        "--reference",
        type=click.Choice(["priors", "natural", "uniform"]),
        help="What the KL term pulls to.  [default: priors]",
    ),
    click.option("--law", help="auto, or a law by name (a wrong one lists them).  [default: auto]"),
    click.option("--lambda", "kl", type=float, help="Weight of the KL term, in BPB.  [default: 0.05]"),
    click.option("--target-tokens", metavar="N", help="Tokens of the target run, such as 1T; without it no caps."),
    click.option("--repetition", type=float, help="How often the target may read a domain.  [default: 4]"),
    click.option("--preset", help="Declared tasks: olmes-52, or a YAML file of yours."),
    click.option("--group", multiple=True, metavar="TASK=A,B", help="A task that is the mean of metrics."),
    click.option("--weight", multiple=True, metavar="TASK=W", help="Weight of a task, or of a preset's family."),
    click.option("--drop", multiple=True, metavar="METRIC", help="Do not use this metric."),
    click.option("--runs", type=int, help="Use so many runs, chosen as train_test_split(train_size=RUNS) does."),
    click.option("--ids", type=FILE, help="Use the runs of this file, an id a line."),
    click.option("--mask", type=FILE, help="Table of runs and tasks, 0 where a run does not count for a task."),
    click.option("--seed", type=int, help="Seed of --runs, folds and bootstrap.  [default: 0]"),
    click.option("--also", type=(FILE, FILE), multiple=True, help="An older swarm, RATIOS METRICS, that joins."),
    click.option("--also-domain", multiple=True, metavar="OLD=NEW", help="A domain's name in the older swarms."),
)


def table_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of commands that read tables of a swarm."""
    for option in reversed(_TABLE_OPTIONS):
        command = option(command)
    return command


@cli.command(epilog=EXIT_CODES)
@click.argument("folder", metavar="[DIR]", type=FILE, required=False)
@click.option(
    "--from", "sources", metavar="PATH", type=FILE, multiple=True, help="A folder of text, or of such folders."
)
@click.option("--upgrade", is_flag=True, help="Bring dvc.yaml and stages/ of a project to this version of olmix.")
@click.option("--force", is_flag=True, help="With --upgrade: replace files that were edited, too.")
@click.pass_obj
def init(project: Project, /, folder: Path | None, sources: tuple[Path, ...], upgrade: bool, force: bool) -> int:
    """Lay a project in DIR that runs at once: git, DVC, the pipeline, parameters, tasks and a tokeniser.

    With --from it is made of your text: a domain a folder, its format found out, some documents of each held out as
    tasks; the folders themselves are only read. Without, it is the sample corpus, which is made of installed packages.
    """
    from olmix.cli import init as initialising

    if upgrade:
        if sources:
            raise click.UsageError("--from goes with a new project")
        click.echo(initialising.upgrade(Project(folder) if folder else project, force).to_text())
        return OK
    if folder is None:
        raise click.UsageError("name the folder of the new project: olmix init DIR")
    if force:
        raise click.UsageError("--force goes with --upgrade")
    with Steps("init") as steps:
        laid = initialising.init(Project(folder), sources, steps)
    click.echo(f"{laid.text}\n\nNext: cd {folder}, read params.yaml, then dvc repro and olmix show")
    return OK


@cli.command(epilog=EXIT_CODES)
@click.option("--vocab", type=int, required=True, help="Tokens of the vocabulary, such as 1024 or 32768.")
@click.option("--bytes", "most", metavar="N", default="50M", show_default=True, help="Text to learn from.")
@click.option("--out", type=FILE, help="File to write.  [default: tokenizer.path of params.yaml]")
@click.pass_obj
def tokenizer(project: Project, /, vocab: int, most: str, out: Path | None) -> int:
    """Learn a tokeniser from the domains of params.yaml: every format, filters and partitions included.

    Each entry gives an equal part of the text, a random sample of its documents. The same data gives the same file.
    """
    from olmix.cli.tokenizer import learn_tokenizer
    from olmix.config.fields import parse_count

    click.echo(learn_tokenizer(project, vocab, parse_count(most), out))
    return OK


@cli.command(epilog=f"{EXIT_CODES} With --exit-code: 2 when there is something to do.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.option("--exit-code", is_flag=True, help="Exit with 2 when dvc repro would run something.")
@click.option(
    "--dataset",
    type=FILE,
    help="Plan for this JSON file instead of data/: {domain: {digest, tokens, source}}.",
)
@click.option(
    "--accepted",
    type=FILE,
    help="Plan from this mixture file instead of mixtures/accepted.yaml.",
)
@click.option(
    "--runs-per-domain",
    type=click.IntRange(min=1),
    help="With --dataset: runs for each parameter of the law.",
)
@click.option(
    "--recompute",
    multiple=True,
    metavar="DOMAIN",
    help="With --dataset: recompute this domain though it is unchanged.",
)
@click.option("--no-reuse", is_flag=True, help="With --dataset: recompute every domain.")
@click.option("--target-tokens", metavar="N", help="With --dataset: tokens of the target run, such as 1T.")
@click.option("--repetition", type=float, help="With --dataset: the repetition limit.")
@click.pass_obj
def plan(
    project: Project, /, as_json: bool, exit_code: bool, dataset: Path | None, accepted: Path | None, **options: Any
) -> int:
    """Show what dvc repro would do now: what changed, who is affected, and how many proxies it takes."""
    from olmix.cli import plan as planning

    if dataset is not None:
        view = planning.from_files(project, dataset, accepted, **options)
    else:
        if any(options.values()):
            raise click.UsageError("these options go with --dataset; in a project params.yaml decides")
        view = planning.from_project(project, accepted)
    _print(view.to_json() if as_json else view.to_text())
    return SOMETHING_TO_DO if exit_code and view.something_to_do else OK


@cli.command(epilog=EXIT_CODES)
@click.argument("names", metavar="[DOMAIN]...", nargs=-1)
@click.option("--root", metavar="URL", help="Where the shards lie: a folder, or s3://... and whatever fsspec opens.")
@click.option("--full", is_flag=True, help="Read every shard, also those that look unchanged.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that read.  [default: one a core]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.pass_obj
def scan(
    project: Project, /, names: tuple[str, ...], root: str | None, full: bool, workers: int | None, as_json: bool
) -> int:
    """Read corpora that lie elsewhere, and write what they hold into their domains' folders.

    DOMAIN is an entry of params.yaml: domains or sources; without one, all whose folder holds a manifest.yaml. Only
    shards that have changed are read, and an interrupted scan goes on where it was.
    """
    from olmix.cli import scan as scanning
    from olmix.terminal.progress import warn

    scanned = scanning.scan_entries(project, names, root, full, workers)
    _print(scanning.scan_json(scanned) if as_json else scanning.scan_text(scanned))
    for line in scanning.warnings(scanned):
        warn(line)
    return OK


@cli.command(epilog=f"{EXIT_CODES} 2 when an error is found (warnings alone are 0).")
@click.argument("names", metavar="[DOMAIN]...", nargs=-1)
@click.option("--workers", type=click.IntRange(min=1), help="Processes that read.  [default: one a core]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.pass_obj
def check(project: Project, /, names: tuple[str, ...], workers: int | None, as_json: bool) -> int:
    """Read every shard again, trust nothing, and say what is not as it was recorded and what that costs.

    Shards that are damaged, truncated, gone, or changed without a trace; shards and documents that are there twice,
    within a domain or in two; and text of the tasks that stands in a domain.
    """
    from olmix.cli.check import check as check_entries

    checked = check_entries(project, names, workers)
    _print(checked.to_json() if as_json else checked.to_text())
    return SOMETHING_TO_DO if checked.failed else OK


@cli.command(epilog=EXIT_CODES)
@click.option("--carried", is_flag=True, help="Accept the accepted mixture carried over to today's domains.")
@click.option("--natural", is_flag=True, help="Accept the natural mixture.")
@click.option("--uniform", is_flag=True, help="Accept the uniform mixture.")
@click.option("--anyway", is_flag=True, help="Accept it though it was not measured, or another was measured better.")
@click.pass_obj
def accept(project: Project, /, carried: bool, natural: bool, uniform: bool, anyway: bool) -> int:
    """Make the proposed mixture, or one of the baselines that it was measured against, the accepted one.

    Refuses when the pipeline is not up to date, and, without --anyway, a mixture that was never measured or that was
    measured worse than another one by more than the standard error of their difference.
    """
    from olmix.cli.accept import accept as accept_mixture
    from olmix.core.contenders import CARRIED, NATURAL, PROPOSAL, UNIFORM

    chosen = [name for name, given in ((CARRIED, carried), (NATURAL, natural), (UNIFORM, uniform)) if given]
    if len(chosen) > 1:
        raise click.UsageError(f"--{' and --'.join(chosen)}: name one of them")
    click.echo(accept_mixture(project, chosen[0] if chosen else PROPOSAL, anyway))
    return OK


@cli.command(epilog=EXIT_CODES)
@click.argument("a", required=False)
@click.argument("b", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.pass_obj
def diff(project: Project, /, a: str | None, b: str | None, as_json: bool) -> int:
    """Compare two mixtures: files, git revisions (their proposal), or REVISION:FILE.

    Without arguments: the accepted mixture against the proposal; with one: that against the proposal.
    """
    from olmix.cli import diff as diff_view
    from olmix.cli.revisions import mixture_at

    names = (a or _within(project, project.accepted), b or _within(project, project.proposed))
    before, after = mixture_at(project, names[0]), mixture_at(project, names[1])
    validation = after.validation()
    if as_json:
        _print(diff_view.diff_json(before.file, after.file, validation))
    else:
        _print(diff_view.diff_text(before.file, after.file, names, validation))
    return OK


@cli.command(epilog=EXIT_CODES)
@click.argument("mixture", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.pass_obj
def show(project: Project, /, mixture: str | None, as_json: bool) -> int:
    """Show a mixture as a table, led by what was measured; the proposal when none is named."""
    from olmix.cli import show as show_view
    from olmix.cli.revisions import mixture_at
    from olmix.config.params import load_params

    named = mixture_at(project, mixture or _within(project, project.proposed))
    validation = named.validation()
    if as_json:
        _print(show_view.mixture_json(named.file, validation))
    else:
        # A mixture of olmix fit is shown where no project is.
        descriptions = load_params(project).descriptions if project.params.exists() else {}
        _print(show_view.mixture_text(named, validation, descriptions))
    return OK


@cli.command(epilog=EXIT_CODES)
@table_options
@click.option("--replicates", type=click.IntRange(min=0), help="Bootstrap replicates.  [default: 60]")
@click.option("--curve", is_flag=True, default=None, help="Also draw the learning curve of every law.")
@click.option("--out", type=FILE, help="Folder for mixture.yaml, diagnostics.json and plots.  [default: fit]")
@click.option("--json", "as_json", is_flag=True, help="Print diagnostics.json for scripts.")
@click.pass_obj
def fit(project: Project, /, as_json: bool, **given: Any) -> int:
    """Fit a law to tables of a swarm, whoever trained it, and propose a mixture: no project, no DVC.

    RATIOS and METRICS are CSV or parquet files that share the run ids of a column run or run_id.
    """
    from olmix.cli import fit as fitting
    from olmix.cli import fit_view
    from olmix.cli.plots import draw_fit

    options = _fit_options(given)
    if "out" not in options.model_fields_set:
        options = options.model_copy(update={"out": project.root / options.out})
    inputs = fitting.read_inputs(options)
    require_folder(options.out / "plots")
    with Steps("fit") as steps:
        report = fitting.fit_tables(inputs, steps)
        steps("draw")
        written = [*fitting.write_report(report), *draw_fit(report, options.out / "plots")]
    _print(report.to_json() if as_json else fit_view.fit_text(report))
    click.echo("wrote " + ", ".join(map(str, written)), err=True)
    return OK


@cli.command(epilog=EXIT_CODES)
@table_options
@click.option("--lambdas", metavar="LIST", help="lambda values, such as 0.01,0.05,0.1.")
@click.option("--repetitions", metavar="LIST", help="Repetition limits, such as 2,4,8.")
@click.option("--targets", metavar="LIST", help="Target tokens, such as 1T,5T; by default around --target-tokens.")
@click.option("--out", type=FILE, help="Folder for sweep.json and sweep.png.  [default: sweep]")
@click.option("--json", "as_json", is_flag=True, help="Print sweep.json for scripts.")
@click.pass_obj
def sweep(
    project: Project,
    /,
    as_json: bool,
    lambdas: str | None,
    repetitions: str | None,
    targets: str | None,
    out: Path | None,
    **given: Any,
) -> int:
    """Solve for every combination of lambda, repetition limit and target tokens, and merge what is one mixture.

    For tables as olmix fit takes them; without RATIOS and METRICS, for the laws of the project in this folder.
    """
    from olmix.artifacts.fit_report import sweep_values
    from olmix.cli import fit_view
    from olmix.cli import sweep as sweeping
    from olmix.cli.plots import draw_sweep
    from olmix.files import write_json

    for single, many in (("kl", "lambdas"), ("repetition", "repetitions")):
        if given.get(single) is not None:
            raise click.UsageError(f"a sweep has --{many}, not one of them")
    grid = sweeping.grid_of(lambdas, repetitions, targets)
    options = _fit_options(given) if any(given.values()) else None
    named = options.out if options is not None and "out" in options.model_fields_set else None
    folder = out or named or project.root / "sweep"
    with Steps("sweep") as steps:
        ready = sweeping.ready_tables(options, grid) if options is not None else sweeping.ready_project(project, grid)
        require_folder(folder)
        found = ready(steps)
        values = sweep_values(found.cells, found.domains)
        write_json(folder / "sweep.json", values)
        written = [folder / "sweep.json", draw_sweep(found.cells, found.domains, folder / "sweep.png")]
    _print(values if as_json else fit_view.sweep_text(found.cells, found.domains))
    click.echo("wrote " + ", ".join(map(str, written)), err=True)
    return OK


def _print(answer: str | dict[str, Any] | list[Any]) -> None:
    """A text for people, or values as strict JSON: sorted keys, and null for a number that is not finite."""
    try:
        click.echo(answer if isinstance(answer, str) else canonical_json(answer).decode().rstrip())
    except TypeError as error:  # a file that people write by hand may hold anything
        raise OlmixError(f"--json: {error}; JSON has text as keys, and whole numbers of at most 64 bits") from None


def _fit_options(given: dict[str, Any]) -> FitOptions:
    """Options of the command line over those of --config; what was not given is not there."""
    from olmix.config.fit_options import older_swarms, read_options

    file = given.pop("config")
    also, domains = given.pop("also"), given.pop("also_domain")
    named = {key: value for key, value in given.items() if value is not None and value != ()}
    if "kl" in named:
        named["lambda"] = named.pop("kl")
    pairs = {key: _pairs(named.pop(key), key) for key in ("weight", "group") if key in named}
    if "weight" in pairs:
        named["weights"] = {task: _number(value, f"--weight {task}") for task, value in pairs["weight"].items()}
    if "group" in pairs:
        named["groups"] = {task: metrics.split(",") for task, metrics in pairs["group"].items()}
    if also:
        named["also"] = older_swarms(also, _pairs(domains, "also-domain"))
    elif domains:
        raise click.UsageError("--also-domain goes with --also")
    return read_options(file, named)


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, value = _pair(text, option)
        if name in pairs:
            raise click.UsageError(f"--{option} {name}: given twice")
        pairs[name] = value
    return pairs


def _pair(text: str, option: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise click.UsageError(f"--{option} {text}: write NAME=VALUE")
    return name, value


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"{option}: {text!r} is not a number") from None


def _within(project: Project, path: Path) -> str:
    """A file of the project as a user would name it there."""
    return path.relative_to(project.root).as_posix()


def main() -> None:
    """The console script."""
    run(_main, "what was finished is kept, the same command goes on from there")


def _main() -> int:
    try:
        return int(cli.main(standalone_mode=False) or OK)
    except click.exceptions.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:  # 2 means "something to do", so a usage error is 1
        error.show(sys.stderr)
        return 1
