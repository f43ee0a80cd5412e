"""`python -m olmix.sample_corpus [--out data] [--scale 1] [--force]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from olmix.errors import OlmixError
from olmix.sample_corpus.build import build


def main() -> int:
    """Build the corpus; 0 when it is there afterwards, 1 with one line on stderr when it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m olmix.sample_corpus", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder to fill (default: data)")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the usual sizes (default: 1)")
    parser.add_argument("--force", action="store_true", help="build again what is already there")
    arguments = parser.parse_args()
    try:
        print(build(arguments.out, scale=arguments.scale, force=arguments.force))
    except OlmixError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
