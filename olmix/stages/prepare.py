"""prepare: what the domains of one entry hold, by content, and the tokens that a proxy can read of them."""

from __future__ import annotations

import os
from functools import partial

from olmix.config.keys import params_for
from olmix.data.manifest import prepare as prepare_entry
from olmix.data.parallel import Readers
from olmix.pipeline import link_is_allowed, require_chosen
from olmix.project import Project
from olmix.terminal.exits import run_stage
from olmix.terminal.progress import ProgressDisplay


def prepare(project: Project) -> None:
    """Prepare the entry that DVC names in the environment: a name never reaches a shell."""
    stage = os.environ["DVC_STAGE"].rpartition(":")[2]  # prepare@<domain> or partition@<source>
    name = stage.partition("@")[2]
    params = params_for(project, stage)
    tokenizer = params.load_tokenizer()
    require_chosen(project.root, [params.entry(name, tokenizer).folder])
    with Readers() as readers, ProgressDisplay(f"prepare {name}", "shards", "bytes") as display:
        prepare_entry(
            params.entry(name, tokenizer),
            tokenizer,
            params.sample_tokens(tokenizer.vocabulary),
            partial(link_is_allowed, project.root),
            readers,
            display,
            project.manifests,
            project.tokens,
            project.memories,
        )


def main() -> None:
    """Run the stage in the working directory."""
    run_stage(prepare)
