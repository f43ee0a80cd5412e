"""What the pipeline costs beyond its proxies, by number of domains: `python benchmarks/dvc_scale.py --domains 5 64`.

A temporary project with this repository's own dvc.yaml and stages, N domains of a few kilobytes under `dvc add`, and
a proxy of one layer. Its accepted mixture is written by hand (the natural one), so that the first build prepares N
domains and trains nothing. Then: `dvc repro` with nothing to do, and with the documents of one domain replaced, which
trains the reduced swarm of 3 (2 + 1) = 9 proxies over the virtual domain and that one (fewer where two mixtures come
to the same sequences); and `olmix plan` beside the no-op. Every repeat of a change brings other documents, and every
cell is the median of its own column over the repeats.

Each command of a stage is timed by a shim in front of `python`; what is left of `dvc repro` is DVC itself: starting,
hashing, its lock file and its cache. "proxies" is the time of train and evaluate, "stages" that of all other stages,
most of it starting Python. "prepares" counts the processes of `prepare` that were started. CPU seconds are the figures
to compare: others who use the machine change them by a quarter, and wall time by any factor. Who else did is told by
"load", the length of the queue for a core in the minute before the command ended, this benchmark's one included.

It does not measure reading (benchmarks/reading.py), training (benchmarks/proxy_training.py), a first build from
nothing, which trains 3 (N + 1) proxies, or validation, which is switched off.
"""

from __future__ import annotations

import argparse
import os
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
times >> "{log}"
exit $code
"""


@dataclass(frozen=True)
class Timed:
    """One command: its seconds and CPU seconds, the same of its stages by script, and the load on the machine."""

    seconds: float
    cpu: float
    load: float
    stages: dict[str, float]
    stages_cpu: float
    started: dict[str, int]

    @property
    def proxies(self) -> float:
        """Seconds that train and evaluate took."""
        return self.stages.get("train", 0.0) + self.stages.get("evaluate", 0.0)

    @property
    def others(self) -> float:
        """Seconds that the other stages took."""
        return sum(self.stages.values()) - self.proxies

    @property
    def itself(self) -> float:
        """Seconds in which no stage ran."""
        return self.seconds - sum(self.stages.values())

    @property
    def cpu_itself(self) -> float:
        """CPU seconds without those of the stages."""
        return self.cpu - self.stages_cpu


class Clock:
    """Times what runs in a project; `python` in its commands is a shim that notes when it began and ended."""

    def __init__(self, project: Project, folder: Path) -> None:
        self._project, self._log = project, folder / "stages.log"
        shim = folder / "python"
        shim.write_text(SHIM.format(python=sys.executable, log=self._log))
        shim.chmod(0o755)
        ENVIRONMENT["PATH"] = f"{folder}:{ENVIRONMENT['PATH']}"

    def run(self, *words: str) -> tuple[Ran, Timed]:
        """Run a command."""
        self._log.write_text("")
        begin, used = time.perf_counter(), cpu_of_children()
        ran = self._project.expect(*words)
        seconds, cpu = time.perf_counter() - begin, cpu_of_children() - used
        stages: dict[str, float] = {}
        started: dict[str, int] = {}
        stages_cpu = 0.0
        # Three lines a command: the shim's own, and what `times` says of the shell and of its children.
        lines = iter(self._log.read_text().splitlines())
        for line in lines:
            script, began, stopped = line.split()
            name = Path(script).stem
            stages[name] = stages.get(name, 0.0) + float(stopped) - float(began)
            started[name] = started.get(name, 0) + 1
            stages_cpu += sum(map(minutes_and_seconds, f"{next(lines)} {next(lines)}".split()))
        return ran, Timed(seconds, cpu, os.getloadavg()[0], stages, stages_cpu, started)


def minutes_and_seconds(text: str) -> float:
    """Seconds of a time as `times` prints it: 1m2.5s."""
    minutes, _, seconds = text.rstrip("s").partition("m")
    return 60 * float(minutes) + float(seconds)


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


def build(project: Project, clock: Clock) -> list[Timed]:
    """The first build: what `prepare` takes, and what the rest does without a proxy."""
    _, prepared = clock.run("dvc", "repro", "prepare")
    accept_natural(project)
    _, rest = clock.run("dvc", "repro")
    project.commit("built")
    return [prepared, rest]


def measure(project: Project, domain: str, clock: Clock, repeats: int) -> dict[str, list[Timed]]:
    """No-ops of a project that is built, plans of it, and changes of one domain, by what the table calls them."""
    nothing, planned, changed = [], [], []
    for _ in range(repeats):
        ran, timed = clock.run("dvc", "repro")
        assert not ran.stages, ran.stages
        nothing.append(timed)
        ran, timed = clock.run("olmix", "plan")
        assert "nothing to run" in ran.out.lower(), ran.out
        planned.append(timed)
    for version in range(1, repeats + 1):
        write_shards(project.root / f"data/{domain}", documents(domain, DOCUMENTS, version))
        ran, timed = clock.run("dvc", "repro")
        assert ran.stages[:2] == [f"prepare@{domain}", "plan"], ran.stages
        assert ran.done("train"), ran.err
        changed.append(timed)
    return {
        "dvc repro: nothing to do": nothing,
        "olmix plan: nothing to do": planned,
        "dvc repro: one changed, 9 proxies": changed,
    }


def cells(timed: list[Timed]) -> list[str]:
    """Medians: all, of CPU, without stages the same two, other stages, proxies, started prepares, load."""
    columns = zip(
        *((t.seconds, t.cpu, t.itself, t.cpu_itself, t.others, t.proxies, t.load) for t in timed), strict=True
    )
    *seconds, load = (f"{statistics.median(column):.1f}" for column in columns)
    return [*seconds, str(timed[0].started.get("prepare", 0)), load]


def main() -> None:
    """Measure every number of domains and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domains", type=int, nargs="+", default=[5, 64], help="how many (256: 10 to 25 minutes)")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of the no-op and of the change")
    arguments = parser.parse_args()

    heads = ("all, s", "CPU, s", "itself, s", "its CPU, s", "stages, s", "proxies, s", "prepares", "load")
    table = Table("domains", "command", *heads, title=f"{os.cpu_count()} cores")
    for domains in arguments.domains:
        with tempfile.TemporaryDirectory() as folder:
            project, names = create(Path(folder) / "project", domains)
            clock = Clock(project, Path(folder))
            for what, timed in zip(("prepare", "the rest"), build(project, clock), strict=True):
                table.add_row(str(domains), f"dvc repro: first build, {what}", *cells([timed]))
            for what, repeated in measure(project, names[0], clock, arguments.repeats).items():
                table.add_row(str(domains), what, *cells(repeated))
            table.add_section()
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
