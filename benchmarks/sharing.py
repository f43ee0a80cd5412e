"""What sharing finished runs costs: `python benchmarks/sharing.py`.

Runs (a record of 2 KB and 1 MB of weights each) are stored in DVC's run-cache, pushed to an S3 server on this machine,
and found from a fresh clone; beside it, in the same process and from the same server, the naive way: DVC fetches its
whole run-cache and restores one stage after another, timed on fewer runs and scaled. The server runs on the same cores
as those who ask it, so processor time counts double and latency not at all. It does not measure training, nor the
copies into the journal.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from olmix.core.seeds import generator
from olmix.pipeline import RunCache
from olmix.runs.sharing import Entry
from tests.project import ENVIRONMENT
from tests.s3 import CREDENTIALS, Endpoint, endpoint, why_not

RECORD, WEIGHTS = 2_000, 1 << 20
WANTED_STORE, WANTED_FETCH = 6.0, 15.0


def run(root: Path, *words: str) -> None:
    """Run a command in a repository."""
    subprocess.run(words, cwd=root, env=ENVIRONMENT | CREDENTIALS, check=True, stdout=subprocess.DEVNULL)


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def warn(line: str) -> None:
    """End here: what a cache costs that does not work is no result."""
    raise SystemExit(line)


def create(root: Path, server: Endpoint, count: int) -> list[Entry]:
    """A repository with the files of `count` finished runs, and their entries."""
    root.mkdir()
    run(root, "git", "init", "-q", "-b", "main")
    run(root, "dvc", "init", "-q")
    run(root, "dvc", "remote", "add", "-q", "-d", "s3", f"{server.bucket('sharing')}/team")
    run(root, "dvc", "remote", "modify", "s3", "endpointurl", server.url)
    (root / "build").mkdir()
    entries = []
    for k in range(count):
        draw = generator("sharing", k)
        outputs = (f"build/{k}.json", f"build/{k}.safetensors")
        for path, size in zip(outputs, (RECORD, WEIGHTS), strict=True):
            (root / path).write_bytes(draw.bytes(size))
        entries.append(Entry(f"olmix train {k}", f"inputs/{k}.json", draw.bytes(RECORD), outputs))
    return entries


def opened(root: Path) -> RunCache:
    """The run-cache of a repository, with DVC imported and the repository open."""
    cache = RunCache(root, warn)
    cache.held([])
    return cache


def naive(root: Path, entries: Sequence[Entry], scaled_to: int) -> tuple[float, float]:
    """Seconds in which DVC fetches all entries, and restores the stages of `entries` one by one, scaled."""
    from dvc.repo import Repo
    from dvc.stage import PipelineStage, create_stage

    os.chdir(root)
    for entry in entries:
        (root / entry.input_path).parent.mkdir(exist_ok=True)
        (root / entry.input_path).write_bytes(entry.input)
    with Repo() as repo, repo.lock:

        def restore() -> None:
            for entry in entries:
                what = {"cmd": entry.command, "deps": [entry.input_path], "outs": list(entry.outputs)}
                repo.stage_cache.restore(create_stage(PipelineStage, repo=repo, path="dvc.yaml", **what), pull=True)

        return timed(lambda: repo.stage_cache.pull(None)), timed(restore) * scaled_to / len(entries)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=512)
    parser.add_argument("--naive-runs", type=int, default=64)
    options = parser.parse_args()
    if reason := why_not():
        print(f"skipped: {reason}; pip install 'moto[server]' dvc-s3")
        return
    os.environ |= CREDENTIALS | {"DVC_NO_ANALYTICS": "1"}
    with tempfile.TemporaryDirectory() as scratch, endpoint() as server:
        folder = Path(scratch)
        origin = folder / "origin"
        entries = create(origin, server, options.runs)
        cache = opened(origin)
        seconds = {
            "stored": timed(lambda: cache.store(entries)),
            "stored again": timed(lambda: cache.store(entries)),
            "held (`olmix plan`)": timed(lambda: cache.held(entries)),
            "found here": timed(lambda: cache.find(entries)),
        }
        run(origin, "dvc", "add", "-q", "build")
        run(origin, "git", "add", "-A")
        run(origin, "git", "commit", "-q", "-m", "runs")
        seconds["pushed (`dvc push --run-cache`)"] = timed(lambda: run(origin, "dvc", "push", "-q", "--run-cache"))
        for name in ("clone", "naive"):
            run(folder, "git", "clone", "-q", str(origin), name)
        entries_s, stages_s = naive(folder / "naive", entries[: options.naive_runs], options.runs)
        clone = opened(folder / "clone")
        seconds["fetched into a fresh clone"] = timed(lambda: clone.find(entries))
        assert clone.held(entries) == set(entries)
        os.chdir("/")
    fetched = seconds["fetched into a fresh clone"]
    table = Table("", "seconds", "", title=f"{options.runs} runs")
    for name, value in seconds.items():
        table.add_row(name, f"{value:.2f}", "")
    note = f"{entries_s:.1f} s for its entries, and stages ({options.naive_runs} timed, scaled)"
    table.add_row("fetched by DVC, one stage after another", f"{entries_s + stages_s:.1f}", note)
    console = Console(width=120)
    console.print(table)
    console.print(f"DVC alone takes {(entries_s + stages_s) / fetched:.1f} times as long.")
    console.print(f"Wanted for 512 runs: stored in {WANTED_STORE:g} s, fetched in {WANTED_FETCH:g} s.")


if __name__ == "__main__":
    main()
