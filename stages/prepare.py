"""prepare: what one domain holds, by content, and the tokens that a proxy can read of it."""

import os

from olmix.data.manifest import MANIFESTS, TOKENS, prepare_domain, scan_memory
from olmix.data.tokensets import write_tokens
from olmix.faces.config import load_params
from olmix.faces.entry import run
from olmix.faces.progress import ProgressDisplay
from olmix.files import write_json
from olmix.pipeline import link_is_allowed


def main() -> None:
    name = os.environ["DVC_STAGE"].rpartition("@")[2]
    params = load_params()
    tokenizer = params.load_tokenizer()
    with ProgressDisplay(f"prepare {name}", "shards", "bytes") as display:
        manifest, sample = prepare_domain(
            params.domain_source(name),
            tokenizer,
            limit=params.sample_tokens(tokenizer.vocabulary),
            memory=scan_memory(name),
            allowed=link_is_allowed,
            report=display,
        )
    write_tokens(TOKENS / f"{name}.npy", sample.tokens)
    write_json(MANIFESTS / f"{name}.json", manifest)


if __name__ == "__main__":
    run(main)
