"""prepare: what the domains of one entry hold, by content, and the tokens that a proxy can read of them."""

import os

from olmix.config.keys import params_for
from olmix.data.manifest import prepare
from olmix.data.parallel import Readers
from olmix.pipeline import link_is_allowed
from olmix.terminal.exits import run
from olmix.terminal.progress import ProgressDisplay


def main() -> None:
    stage = os.environ["DVC_STAGE"].rpartition(":")[2]  # prepare@<domain> or partition@<source>
    name = stage.partition("@")[2]
    params = params_for(stage)
    tokenizer = params.load_tokenizer()
    with Readers() as readers, ProgressDisplay(f"prepare {name}", "shards", "bytes") as display:
        prepare(
            params.entry(name, tokenizer),
            tokenizer,
            limit=params.sample_tokens(tokenizer.vocabulary),
            allowed=link_is_allowed,
            readers=readers,
            report=display,
        )


if __name__ == "__main__":
    run(main)
