"""The command line. Every command parses, calls the library, and prints."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from olmix import __version__
from olmix.cli.options import FILE, TableCommand, fit_options
from olmix.errors import ConfigError, OlmixError
from olmix.files import canonical_json, require_folder
from olmix.project import Project
from olmix.terminal.exits import OK, SOMETHING_TO_DO, run
from olmix.terminal.steps import Steps

EXIT_CODES = "Exit codes: 0 done, 1 an error (one line on standard error), 130 interrupted."


@click.group(epilog=EXIT_CODES)
@click.option(
    "-C", "root", metavar="DIR", type=click.Path(path_type=Path), default=".", help="Work as if started in DIR."
)
@click.version_option(__version__, message="olmix %(version)s")
@click.pass_context
def cli(context: click.Context, root: Path) -> None:
    """Data mixtures as build artefacts: declare domains in params.yaml, run `dvc repro`, review the mixture's diff."""
    if not root.is_dir():
        raise ConfigError("no such folder", file=root)
    context.obj = Project(root)


@cli.command(epilog=EXIT_CODES)
@click.argument("folder", metavar="[DIR]", type=FILE, required=False)
@click.option(
    "--from", "sources", metavar="PATH", type=FILE, multiple=True, help="A folder of text, or a folder of such folders."
)
@click.option("--upgrade", is_flag=True, help="Bring dvc.yaml and stages/ of a project to this version of olmix.")
@click.option("--force", is_flag=True, help="With --upgrade: also replace files that were edited.")
@click.pass_obj
def init(project: Project, /, folder: Path | None, sources: tuple[Path, ...], upgrade: bool, force: bool) -> int:
    """Create a project in DIR that runs at once: git, DVC, the pipeline, parameters, tasks and a tokeniser.

    With --from, each folder of text becomes a domain: formats are detected, and some documents are held out as tasks.
    The folders are not changed. Without --from, the project has the sample corpus, made from installed packages.
    """
    from olmix.cli import init as initialising

    if upgrade:
        if sources:
            raise click.UsageError("--from is for a new project; give it without --upgrade")
        click.echo(initialising.upgrade(Project(folder) if folder else project, force).to_text())
        return OK
    if folder is None:
        raise click.UsageError("give the folder of the new project: `olmix init DIR`")
    if force:
        raise click.UsageError("--force needs --upgrade")
    with Steps("init") as steps:
        domains = initialising.init(Project(folder), sources, steps)
    click.echo(
        f"{domains}\n\nNext: `cd {shlex.quote(str(folder))}`, read params.yaml, then run `dvc repro` and `olmix show`"
    )
    return OK


@cli.command(epilog=EXIT_CODES)
@click.option("--vocab", metavar="N", required=True, help="Size of the vocabulary at most, such as 1024 or 32k.")
@click.option("--bytes", "most", metavar="N", default="50M", show_default=True, help="Text to learn from.")
@click.option("--out", type=FILE, help="File to write.  [default: tokenizer.path of params.yaml]")
@click.pass_obj
def tokenizer(project: Project, /, vocab: str, most: str, out: Path | None) -> int:
    """Learn a tokeniser from the domains in params.yaml, in any format, with their filters and partitions.

    Each entry gives an equal part of the text, a random sample of its documents. The same data gives the same file.
    """
    from olmix.cli.tokenizer import learn_tokenizer
    from olmix.config.fields import parse_count

    click.echo(learn_tokenizer(project, parse_count(vocab), parse_count(most), out))
    return OK


@cli.command(epilog=f"{EXIT_CODES} With --exit-code: 2 when there is something to do.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.option("--exit-code", is_flag=True, help="Exit with 2 when `dvc repro` would run something.")
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
    help="With --dataset: runs per parameter of the law.",
)
@click.option(
    "--recompute",
    multiple=True,
    metavar="DOMAIN",
    help="Recompute this domain although it is unchanged.",
)
@click.option("--keep", multiple=True, metavar="DOMAIN", help="Keep this domain's weight whatever changed of it.")
@click.option("--no-reuse", is_flag=True, help="With --dataset: recompute every domain.")
@click.option("--target-tokens", metavar="N", help="With --dataset: tokens of the target run, such as 1T.")
@click.option("--repetition", type=float, help="With --dataset: the repetition limit.")
@click.pass_obj
def plan(
    project: Project,
    /,
    as_json: bool,
    exit_code: bool,
    dataset: Path | None,
    accepted: Path | None,
    recompute: tuple[str, ...],
    keep: tuple[str, ...],
    **options: Any,
) -> int:
    """Show what `dvc repro` would do now: what changed, which domains are affected, and how many proxies it takes."""
    from olmix.cli import plan as planning

    if dataset is not None:
        if keep:
            raise click.UsageError("--keep needs a project's data; leave --dataset out")
        view = planning.from_files(project, dataset, accepted, recompute=recompute, **options)
    else:
        if any(options.values()):
            raise click.UsageError("these options need --dataset; in a project, params.yaml decides")
        view = planning.from_project(project, accepted, keep, recompute)
    _print(view.to_json() if as_json else view.to_text())
    return SOMETHING_TO_DO if exit_code and view.something_to_do else OK


@cli.command(epilog=EXIT_CODES)
@click.argument("names", metavar="[DOMAIN]...", nargs=-1)
@click.option(
    "--root", metavar="URL", help="Where the shards are: a folder, or a URL that fsspec opens, such as s3://..."
)
@click.option("--full", is_flag=True, help="Read every shard, even if it looks unchanged.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that read.  [default: one per core]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.pass_obj
def scan(
    project: Project, /, names: tuple[str, ...], root: str | None, full: bool, workers: int | None, as_json: bool
) -> int:
    """Read corpora outside the project, and describe their content in the domains' folders.

    DOMAIN is an entry of params.yaml: domains or sources; the default is all whose folder has a manifest.yaml. Only
    shards that have changed are read, and an interrupted scan continues where it stopped.
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
@click.option("--workers", type=click.IntRange(min=1), help="Processes that read.  [default: one per core]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.pass_obj
def check(project: Project, /, names: tuple[str, ...], workers: int | None, as_json: bool) -> int:
    """Re-read every shard and list what no longer matches what olmix read before, and what that costs.

    It finds shards that are damaged, truncated, missing or silently changed; duplicate shards and documents, within a
    domain or in two; and text of the tasks in a domain.
    """
    from olmix.cli.check import check as check_entries

    checked = check_entries(project, names, workers)
    _print(checked.to_json() if as_json else checked.to_text())
    return SOMETHING_TO_DO if checked.failed else OK


@cli.command(epilog=EXIT_CODES)
@click.option("--carried", is_flag=True, help="Accept the accepted mixture carried over to today's domains.")
@click.option("--natural", is_flag=True, help="Accept the natural mixture.")
@click.option("--uniform", is_flag=True, help="Accept the uniform mixture.")
@click.option("--anyway", is_flag=True, help="Accept it although it was not measured, or another was measured better.")
@click.pass_obj
def accept(project: Project, /, carried: bool, natural: bool, uniform: bool, anyway: bool) -> int:
    """Make the proposed mixture, or one of the baselines that it was measured against, the accepted one.

    Refuses when the pipeline is not up to date. Without --anyway, also refuses a mixture that was not measured, or was
    measured worse than another by more than the standard error of their difference.
    """
    from olmix.cli.accept import accept as accept_mixture
    from olmix.core.contenders import CARRIED, NATURAL, PROPOSAL, UNIFORM

    chosen = [name for name, given in ((CARRIED, carried), (NATURAL, natural), (UNIFORM, uniform)) if given]
    if len(chosen) > 1:
        raise click.UsageError(f"--{' and --'.join(chosen)}: give only one of them")
    click.echo(accept_mixture(project, chosen[0] if chosen else PROPOSAL, anyway))
    return OK


@cli.command(epilog=EXIT_CODES)
@click.argument("a", required=False)
@click.argument("b", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.pass_obj
def diff(project: Project, /, a: str | None, b: str | None, as_json: bool) -> int:
    """Compare two mixtures: files, git revisions (their proposal), or REVISION:FILE.

    Without arguments: the accepted mixture against the proposal; with one: that mixture against the proposal.
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
    """Show a mixture as a table below what was measured; by default, the proposal."""
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


@cli.command(cls=TableCommand, epilog=EXIT_CODES)
@click.option("--json", "as_json", is_flag=True, help="Print diagnostics.json for scripts.")
@click.pass_obj
def fit(project: Project, /, as_json: bool, **given: Any) -> int:
    """Fit a law to tables of any swarm, and propose a mixture: no project, no DVC.

    RATIOS and METRICS are CSV or parquet files with the same run ids, in a column run or run_id.
    """
    from olmix.cli import fit as fitting
    from olmix.cli import fit_view
    from olmix.cli.plots import draw_fit

    options = fit_options(given, project.root)
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


@cli.command(cls=TableCommand, without=("replicates", "curve", "out"), epilog=EXIT_CODES)
@click.option("--lambdas", metavar="LIST", help="Values of lambda.  [default: 0.01,0.02,0.05,0.1,0.2]")
@click.option("--repetitions", metavar="LIST", help="Repetition limits.  [default: 1,2,4,8]")
@click.option("--targets", metavar="LIST", help="Target tokens, such as 1T,5T; by default, around --target-tokens.")
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
    """Solve for every combination of lambda, repetition limit and target tokens, and merge equal mixtures.

    Takes tables as `olmix fit` does; without RATIOS and METRICS, uses the laws of the project in this folder.
    """
    from olmix.artifacts.fit_report import sweep_values
    from olmix.cli import fit_view
    from olmix.cli import sweep as sweeping
    from olmix.cli.plots import draw_sweep
    from olmix.files import write_json

    for single, many in (("lambda", "lambdas"), ("repetition", "repetitions")):
        if given.get(single) is not None:
            raise click.UsageError(f"use --{many}: a sweep takes a list")
    grid = sweeping.grid_of(lambdas, repetitions, targets)
    options = fit_options(given, project.root) if any(given.values()) else None
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
        raise OlmixError(
            f"{error}; in JSON, keys are text and whole numbers have at most 64 bits", key="--json"
        ) from None


def _within(project: Project, path: Path) -> str:
    """A file of the project as a user would name it there."""
    return path.relative_to(project.root).as_posix()


def main() -> None:
    """The console script."""
    run(_main, "what was finished is kept; the same command continues from there")


def _main() -> int:
    try:
        return int(cli.main(standalone_mode=False) or OK)
    except click.exceptions.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:  # 2 means "something to do", so a usage error is 1
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "olmix"
        raise OlmixError(error.format_message().rstrip("."), way_out=f"see `{command} --help`") from None
