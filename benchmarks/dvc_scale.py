"""What the pipeline costs beyond its proxies, by number of domains: `python benchmarks/dvc_scale.py --domains 5 64`.

A temporary project with this repository's own dvc.yaml and stages, N domains of a few kilobytes under `dvc add`, and
a proxy of one layer. Its accepted mixture is written by hand (the natural one), so that the first build prepares N
domains and trains nothing. Then: `dvc repro` with nothing to do, and with the documents of one domain replaced, which
trains the reduced swarm of 3 (2 + 1) = 9 proxies over the virtual domain and that one (fewer where two mixtures come
to the same sequences); and `olmix plan`
beside the no-op. Medians of the repeats; every repeat of a change brings other documents.

Each command of a stage is timed by a shim in front of `python`; what is left of `dvc repro` is DVC itself: starting,
hashing, its lock file and its cache. "proxies" is the time of train and evaluate, "stages" that of all other stages,
most of it starting Python. "prepares" counts the processes of `prepare` that were started.

It does not measure reading (benchmarks/reading.py), training (benchmarks/proxy_training.py), a first build from
nothing, which trains 3 (N + 1) proxies, or validation, which is switched off.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from olmix.artifacts.mixture_file import MixtureFile, write_mixture
from olmix.core.mixture import Mixture, Share
from olmix.core.quantise import quantise
from olmix.data.manifest import dataset_of, read_manifests
from tests.project import DOMAINS, ENVIRONMENT, Project, Ran, documents, write_shards

KINDS = ("code", "math", "web")
DOCUMENTS = 60
SHIM = """#!/bin/sh
begin=$(date +%s.%N)
"{python}" "$@"
code=$?
echo "$1 $begin $(date +%s.%N)" >> "{log}"
exit $code
"""


@dataclass(frozen=True)
class Repro:
    """Seconds of one command: all of it, its CPU time, and the commands of its stages by script."""

    seconds: float
    cpu: float
    stages: dict[str, float]
    started: dict[str, int]

    @property
    def proxies(self) -> float:
        """Seconds that train and evaluate took."""
        return self.stages.get("train", 0.0) + self.stages.get("evaluate", 0.0)

    @property
    def dvc(self) -> float:
        """Seconds in which no stage ran."""
        return self.seconds - sum(self.stages.values())


class Clock:
    """Times what runs in a project; `python` in its commands is a shim that notes when it began and ended."""

    def __init__(self, project: Project, folder: Path) -> None:
        self._project, self._log = project, folder / "stages.log"
        shim = folder / "python"
        shim.write_text(SHIM.format(python=sys.executable, log=self._log))
        shim.chmod(0o755)
        ENVIRONMENT["PATH"] = f"{folder}:{ENVIRONMENT['PATH']}"

    def run(self, *words: str) -> tuple[Ran, Repro]:
        """Run a command."""
        self._log.write_text("")
        begin, used = time.perf_counter(), cpu_of_children()
        ran = self._project.expect(*words)
        seconds, cpu = time.perf_counter() - begin, cpu_of_children() - used
        stages: dict[str, float] = {}
        started: dict[str, int] = {}
        for line in self._log.read_text().splitlines():
            script, began, stopped = line.split()
            name = Path(script).stem
            stages[name] = stages.get(name, 0.0) + float(stopped) - float(began)
            started[name] = started.get(name, 0) + 1
        return ran, Repro(seconds, cpu, stages, started)


def cpu_of_children() -> float:
    """CPU seconds of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def create(root: Path, domains: int) -> tuple[Project, list[str]]:
    """The tests' project with `domains` other domains."""
    project = Project.create(root)
    project.dvc("remove", "-q", *(f"data/{name}.dvc" for name in DOMAINS))
    names = [f"{KINDS[k % len(KINDS)]}{k:03d}" for k in range(domains)]
    for name in names:
        write_shards(root / f"data/{name}", documents(name, DOCUMENTS))
    project.dvc("add", "-q", *(f"data/{name}" for name in names))
    params = project.params
    params["domains"] = {name: {"path": f"data/{name}"} for name in names}
    params["descriptions"] = {}
    params["target"]["tokens"] = 4_000 * domains
    params["validate"]["seeds"] = 0
    project.params = params
    project.commit("domains")
    return project, names


def accept_natural(project: Project) -> None:
    """Write the natural mixture of the prepared domains as the accepted one."""
    dataset = dataset_of(read_manifests(project.places.manifests))
    weights = quantise([dataset.natural[name] for name in dataset.names])
    shares = {
        name: Share(float(weight), dataset.domains[name].tokens, dataset.domains[name].digest)
        for name, weight in zip(dataset.names, weights, strict=True)
    }
    write_mixture(project.places.accepted, MixtureFile(Mixture(shares, dataset.tokenizer)), "Natural proportions.")


def measure(domains: int, repeats: int, folder: Path) -> tuple[Repro, list[Repro], list[Repro], list[Repro]]:
    """The first build, no-ops, plans of it, and changes of one domain."""
    project, names = create(folder / "project", domains)
    clock = Clock(project, folder)
    _, prepared = clock.run("dvc", "repro", "prepare")
    accept_natural(project)
    _, rest = clock.run("dvc", "repro")
    first = Repro(
        prepared.seconds + rest.seconds,
        prepared.cpu + rest.cpu,
        {**prepared.stages, **rest.stages},
        {**prepared.started, **rest.started},
    )
    project.commit("built")

    nothing, planned, changed = [], [], []
    for _ in range(repeats):
        ran, repro = clock.run("dvc", "repro")
        assert not ran.stages, ran.stages
        nothing.append(repro)
        ran, plan = clock.run("olmix", "plan")
        assert "Nothing to do" in ran.out, ran.out
        planned.append(plan)
    for version in range(1, repeats + 1):
        write_shards(project.root / f"data/{names[0]}", documents(names[0], DOCUMENTS, version))
        ran, repro = clock.run("dvc", "repro")
        assert ran.stages[:2] == [f"prepare@{names[0]}", "plan"], ran.stages
        assert ran.done("train"), ran.err
        changed.append(repro)
    return first, nothing, planned, changed


def middle(repros: list[Repro]) -> Repro:
    """The repro with the median time."""
    median = statistics.median_low(repro.seconds for repro in repros)
    return next(repro for repro in repros if repro.seconds == median)


def cells(repro: Repro) -> list[str]:
    """Seconds: all, of CPU, DVC itself with its share, stages, proxies."""
    stages = sum(repro.stages.values()) - repro.proxies
    share = f"{repro.dvc:.1f} ({repro.dvc / repro.seconds:.0%})"
    prepared = str(repro.started.get("prepare", 0))
    return [f"{repro.seconds:.1f}", f"{repro.cpu:.1f}", share, f"{stages:.1f}", f"{repro.proxies:.1f}", prepared]


def main() -> None:
    """Measure every number of domains and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domains", type=int, nargs="+", default=[5, 64], help="how many (256: 10 to 25 minutes)")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of the no-op and of the change")
    arguments = parser.parse_args()

    table = Table("domains", "command", "all, s", "CPU, s", "DVC itself, s", "stages, s", "proxies, s", "prepares")
    for domains in arguments.domains:
        with tempfile.TemporaryDirectory() as folder:
            first, nothing, planned, changed = measure(domains, arguments.repeats, Path(folder))
        table.add_row(str(domains), "dvc repro: first build, no proxy", *cells(first))
        table.add_row("", "dvc repro: nothing to do", *cells(middle(nothing)))
        table.add_row("", "olmix plan: nothing to do", f"{middle(planned).seconds:.1f}", f"{middle(planned).cpu:.1f}")
        table.add_row("", "dvc repro: one changed, 9 proxies", *cells(middle(changed)), end_section=True)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
