"""A project: the folder that holds params.yaml, and where everything in it lies.

Every path below is `root` and a fixed name, so that a project in the working directory has relative paths, in messages
too, and two projects in one process have nothing in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from olmix.files import inside

# The journal's folder as the project names it: a run-cache finds runs by names that are the same on every machine.
STATE = PurePosixPath(".olmix")


@dataclass(frozen=True)
class Project:
    """The project at `root`, which need not be the working directory."""

    root: Path = Path()

    def inside(self, path: str, key: str) -> Path:
        """A path that a user wrote; raises ConfigError, naming its `key` in params.yaml, for one that leaves
        the project."""
        return inside(self.root, path, "params.yaml", key)

    @property
    def params(self) -> Path:
        """What the user decides."""
        return self.root / "params.yaml"

    @property
    def runtime(self) -> Path:
        """Where and how proxies run."""
        return self.root / "runtime.yaml"

    @property
    def pipeline(self) -> Path:
        """The stages, as DVC reads them."""
        return self.root / "dvc.yaml"

    @property
    def accepted(self) -> Path:
        """The mixture that the team trains on."""
        return self.root / "mixtures" / "accepted.yaml"

    @property
    def sketches(self) -> Path:
        """What the accepted weights were measured on, in sketches that drift is counted from."""
        return self.root / "mixtures" / "sketches.jsonl"

    @property
    def proposed(self) -> Path:
        """The mixture that the pipeline proposes."""
        return self.root / "mixtures" / "proposed.yaml"

    @property
    def external(self) -> tuple[Path, Path]:
        """Metrics of proxies that were trained elsewhere: one of these."""
        return self.root / "external" / "metrics.csv", self.root / "external" / "metrics.parquet"

    @property
    def build(self) -> Path:
        """Everything that stages write and git ignores."""
        return self.root / "build"

    @property
    def keys(self) -> Path:
        """What every stage's result depends on besides the files that it reads."""
        return self.build / "keys"

    @property
    def manifests(self) -> Path:
        """What each domain holds."""
        return self.build / "manifests"

    @property
    def tokens(self) -> Path:
        """The token sample of each domain."""
        return self.build / "tokens"

    @property
    def plan(self) -> Path:
        """What changed, and what is recomputed."""
        return self.build / "plan.json"

    @property
    def swarm(self) -> Path:
        """The mixtures to train."""
        return self.build / "swarm.json"

    @property
    def ratios(self) -> Path:
        """The same over real domains."""
        return self.build / "ratios.csv"

    @property
    def collapsed(self) -> Path:
        """The token sets that the swarm draws from."""
        return self.build / "collapsed"

    @property
    def proxies(self) -> Path:
        """The swarm's runs; `journal/` below it holds their records and weights as the journal has them."""
        return self.build / "proxies"

    @property
    def evaluations(self) -> Path:
        """What was measured of the swarm's runs; `journal/` below it as the journal has it."""
        return self.build / "evaluations"

    @property
    def laws(self) -> Path:
        """The fitted laws."""
        return self.build / "fit" / "law.json"

    @property
    def diagnostics(self) -> Path:
        """How good the fit is."""
        return self.build / "fit" / "diagnostics.json"

    @property
    def validation(self) -> Path:
        """The proposal and its baselines, measured."""
        return self.build / "validation.json"

    @property
    def validated(self) -> Path:
        """The runs behind the validation."""
        return self.build / "validation"

    @property
    def state(self) -> Path:
        """What outlives the pipeline's outputs and is nobody else's: the journal, memories of what was read."""
        return self.root / STATE

    @property
    def memories(self) -> Path:
        """What is remembered of shards that were read."""
        return self.state / "scan"

    @property
    def planned(self) -> Path:
        """What `olmix plan` prepares of domains that have changed, before `dvc repro` does."""
        return self.state / "plan"

    @property
    def cut(self) -> Path:
        """Token sets that are cut for simulated repetition and belong to no output."""
        return self.state / "repetition"

    @property
    def speeds(self) -> Path:
        """The speed of the last swarms that were trained here."""
        return self.state / "speed.json"
