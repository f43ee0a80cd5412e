"""`build/collapsed/`: a token set for each coordinate of the swarm, and nothing else that training needs.

A teammate with this folder trains a reuse swarm without the text or the tokens of any unchanged domain.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from olmix.core.plan import Plan
from olmix.core.repetition import Scale
from olmix.core.virtual import VIRTUAL
from olmix.data.tokensets import (
    TokenSet,
    draw_rows,
    draw_virtual,
    identity_of,
    open_token_sets,
    read_tokens,
    write_tokens,
)
from olmix.files import output_folder
from olmix.project import Project

# Under so many sequences the rounding of simulated repetition is more than a tenth of it.
COARSE = 5


def token_sets(
    project: Project, plan: Plan, sequence_length: int, scale: Scale | None, planned: Collection[str] = ()
) -> dict[str, TokenSet]:
    """What runs draw from, by domain, cut for simulated repetition by `scale`: the samples of `build/tokens/`, but of
    the domains `planned` those that `olmix plan` made."""
    sets = open_token_sets(project.tokens, sequence_length, set(plan.dataset.names) - set(planned))
    sets |= open_token_sets(project.planned / "tokens", sequence_length, planned)
    if scale is None:
        return sets
    rows = {name: scale.rows(plan.dataset.domains[name].tokens) for name in sets}
    return {name: _cut(project, sets[name], rows[name], sequence_length) for name in sets}


def _cut(project: Project, token_set: TokenSet, rows: int, sequence_length: int) -> TokenSet:
    """Rows from all over a sample, as many as a proxy may be shown."""
    if rows >= token_set.rows:
        return token_set
    tokens = draw_rows(read_tokens(token_set.path), token_set.identity, rows, sequence_length)
    identity = identity_of(tokens)
    # Named by its content: a run that is under way reads what it was given, whatever is planned meanwhile.
    path = project.cut / f"{identity}.npy"
    if not path.exists():
        write_tokens(path, tokens)
    return replace(token_set, path=path, identity=identity, rows=rows)


def coarse_domains(plan: Plan, sets: Mapping[str, TokenSet], scale: Scale) -> dict[str, str]:
    """Domains whose repetition in a proxy is not quite that of the target, and why."""
    reasons = {}
    for name, domain in plan.dataset.domains.items():
        wanted = scale.sequences(domain.tokens)
        enough = scale.run_tokens // scale.sequence_length
        if wanted < COARSE:
            reasons[name] = f"its share is {wanted:.2g} sequences, rounded to {scale.rows(domain.tokens)}"
        elif scale.rows(domain.tokens) > sets[name].rows < enough:
            reasons[name] = f"its share is {wanted:.0f} sequences, but its shards have only {sets[name].rows}"
    return reasons


def write_collapsed(
    project: Project, plan: Plan, sequence_length: int, sequences: int, scale: Scale | None
) -> dict[str, str]:
    """Write the token sets of a plan: each affected domain's as it is, the virtual domain's drawn from its members by
    their frozen ratios, `sequences` rows of it, which is all that a run can read.

    Returns the domains whose repetition could not be simulated well, and why.
    """
    output_folder(project.collapsed, empty=not plan.affected)
    if not plan.affected:
        return {}
    sets = token_sets(project, plan, sequence_length, scale)
    for name in plan.affected:
        write_tokens(project.collapsed / f"{name}.npy", read_tokens(sets[name].path))
    if plan.space.members:
        virtual = draw_virtual(plan.space.members, sets, sequence_length, sequences)
        write_tokens(project.collapsed / f"{VIRTUAL}.npy", virtual)
    return coarse_domains(plan, sets, scale) if scale else {}
