"""The command line. Every command parses, calls the library, and prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from olmix import __version__
from olmix.faces.entry import OK, SOMETHING_TO_DO, run

EXIT_CODES = "Exit codes: 0 done, 1 an error (one line on standard error), 130 interrupted."


@click.group(epilog=EXIT_CODES)
@click.version_option(__version__, message="olmix %(version)s")
def cli() -> None:
    """Data mixtures as build artefacts: declare domains in params.yaml, run dvc repro, review the mixture as a diff."""


@cli.command(epilog=f"{EXIT_CODES} With --exit-code: 2 when there is something to do.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.option("--exit-code", is_flag=True, help="Exit with 2 when dvc repro would run something.")
@click.option(
    "--dataset",
    type=click.Path(path_type=Path),
    help="Plan for this JSON file instead of data/: {domain: {digest, tokens, source}}.",
)
@click.option(
    "--accepted",
    type=click.Path(path_type=Path),
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
def plan(as_json: bool, exit_code: bool, dataset: Path | None, accepted: Path | None, **options: Any) -> int:
    """Show what dvc repro would do now: what changed, who is affected, and how many proxies it takes."""
    from olmix.faces import planning

    if dataset is not None:
        view = planning.from_files(dataset, accepted, **options)
    else:
        if any(options.values()):
            raise click.UsageError("these options go with --dataset; in a project params.yaml decides")
        view = planning.from_project(accepted)
    click.echo(json.dumps(view.to_json(), indent=2) if as_json else view.to_text())
    return SOMETHING_TO_DO if exit_code and view.something_to_do else OK


@cli.command(epilog=EXIT_CODES)
def accept() -> int:
    """Make the proposed mixture the accepted one; refuses when the pipeline is not up to date."""
    from olmix.faces.accept import accept as accept_proposal

    click.echo(accept_proposal())
    return OK


@cli.command(epilog=EXIT_CODES)
@click.argument("a", required=False)
@click.argument("b", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def diff(a: str | None, b: str | None, as_json: bool) -> int:
    """Compare two mixtures: files, git revisions (their proposal), or REVISION:FILE.

    Without arguments: the accepted mixture against the proposal; with one: that against the proposal.
    """
    from olmix.faces import diff_view
    from olmix.faces.revisions import mixture_at
    from olmix.outputs.mixture_file import ACCEPTED, PROPOSED
    from olmix.outputs.validation import read_validation

    names = (a or str(ACCEPTED), b or str(PROPOSED))
    before, after = mixture_at(names[0]), mixture_at(names[1])
    validation = read_validation(after.mixture.weights)
    if as_json:
        click.echo(json.dumps(diff_view.diff_json(before, after, validation), indent=2))
    else:
        click.echo(diff_view.diff_text(before, after, names, validation))
    return OK


@cli.command(epilog=EXIT_CODES)
@click.argument("mixture", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def show(mixture: str | None, as_json: bool) -> int:
    """Show a mixture as a table, led by what was measured; the proposal when none is named."""
    from olmix.faces import mixture_view
    from olmix.faces.config import load_params
    from olmix.faces.revisions import mixture_at
    from olmix.outputs.mixture_file import PROPOSED
    from olmix.outputs.plan_file import PLAN, read_plan
    from olmix.outputs.validation import read_validation

    file = mixture_at(mixture or str(PROPOSED))
    validation = read_validation(file.mixture.weights)
    if as_json:
        click.echo(json.dumps(mixture_view.mixture_json(file, validation), indent=2))
    else:
        known = read_plan() if PLAN.exists() else None
        click.echo(mixture_view.mixture_text(file, validation, known, load_params().descriptions))
    return OK


def main() -> None:
    """The console script."""
    run(_main)


def _main() -> int:
    try:
        return int(cli.main(standalone_mode=False) or OK)
    except click.exceptions.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:  # 2 means "something to do", so a usage error is 1
        error.show(sys.stderr)
        return 1
