"""`build/collapsed/`: a token set for each coordinate of the swarm, and nothing else that training needs.

A teammate with this folder trains a reuse swarm without the text or the tokens of any unchanged domain.
"""

from __future__ import annotations

from pathlib import Path

from olmix.core.plan import Plan
from olmix.core.virtual import VIRTUAL
from olmix.data.manifest import TOKENS
from olmix.data.tokensets import draw_virtual, open_token_sets, read_tokens, write_tokens
from olmix.files import output_folder

COLLAPSED = Path("build/collapsed")


def write_collapsed(plan: Plan, sequence_length: int, sequences: int) -> None:
    """Write the token sets of a plan: each affected domain's sample as it is, the virtual domain's drawn from its
    members by their frozen ratios, `sequences` rows of it, which is all that a run can read."""
    output_folder(COLLAPSED, empty=not plan.affected)
    if not plan.affected:
        return
    sets = open_token_sets(TOKENS, sequence_length)
    for name in plan.affected:
        write_tokens(COLLAPSED / f"{name}.npy", read_tokens(sets[name].path))
    if plan.space.members:
        virtual = draw_virtual(plan.space.members, sets, sequence_length, sequences)
        write_tokens(COLLAPSED / f"{VIRTUAL}.npy", virtual)
