"""A small real project in a temporary git + DVC repository: real text, real proxies, seconds instead of minutes."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from olmix.core.seeds import generator
from olmix.project import Project as Places
from tests import warm

# Where things are in the project that is the working directory.
HERE = Places()
REPOSITORY = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
    "DVC_NO_ANALYTICS": "1",
    "GIT_AUTHOR_NAME": "tester",
    "GIT_AUTHOR_EMAIL": "tester@example.org",
    "GIT_COMMITTER_NAME": "tester",
    "GIT_COMMITTER_EMAIL": "tester@example.org",
    "OMP_NUM_THREADS": "1",
    "TERM": "dumb",
}
ENVIRONMENT.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes would compile olmix anew
DOMAINS = ("code", "junk", "math", "web")
_WORDS = {
    "code": ["def", "return", "if", "else", "for", "in", "range", "print", "self", "value", "index", "list"],
    "web": ["the", "people", "said", "that", "they", "would", "come", "home", "after", "long", "days", "of", "work"],
    "math": [f"{a}+{b}={a + b};" for a in range(6) for b in range(6)],
}


def documents(domain: str, count: int = 120, version: int = 0) -> list[str]:
    """`count` short documents of a domain; another version is other documents of the same kind."""
    draw = generator("test corpus", domain, version)
    texts = []
    for _ in range(count):
        if domain.startswith("junk"):
            letters = draw.integers(33, 127, size=120)
            texts.append("".join(map(chr, letters)))
        else:
            words = _WORDS[next(kind for kind in _WORDS if domain.startswith(kind))]
            ranks = (
                1.0 / (1 + draw.permutation(len(words)))
                if domain.startswith("math")
                else 1.0 / (1 + draw.random(len(words)) * 20)
            )
            texts.append(" ".join(draw.choice(words, size=24, p=ranks / ranks.sum()).tolist()))
    return texts


def write_shards(folder: Path, texts: Sequence[str], shards: int = 2) -> None:
    """Write documents as .jsonl shards, replacing what was there."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for k in range(shards):
        lines = [json.dumps({"text": text}) + "\n" for text in texts[k::shards]]
        (folder / f"part-{k:02d}.jsonl").write_text("".join(lines))


def write_task(path: Path, texts: Sequence[str]) -> None:
    """Write a task whose items are the texts' second halves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": text[: len(text) // 2], "continuation": text[len(text) // 2 :]} for text in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run_stage(name: str, project: Places) -> None:
    """Run a stage of a project in this process; `prepare` reads DVC_STAGE."""
    module = importlib.import_module(f"olmix.stages.{name}")
    getattr(module, {"propose": "propose_mixture"}.get(name, name))(project)


class Ran:
    """What a command printed, and which stages it ran."""

    def __init__(self, result: subprocess.CompletedProcess[str]) -> None:
        self.code = result.returncode
        self.out = result.stdout
        self.err = result.stderr
        self.stages = re.findall(r"Running stage '([^']+)'", result.stdout)

    def done(self, what: str) -> int:
        """Jobs that `what` (train, evaluate, validate) did now; 0 when its stage did not run."""
        line = rf"^{re.escape(what)}: \d+ runs, \d+ in the journal, (?:\d+ in the cache, )?(\d+) done now"
        found = re.findall(line, self.err, re.MULTILINE)
        return sum(map(int, found))


class Project:
    """A project folder and the commands that a person types in it, which `tests.warm` runs where `forked`."""

    def __init__(self, root: Path, forked: bool = True) -> None:
        self.root = root
        self.places = Places(root)
        self.forked = forked

    @classmethod
    def create(cls, root: Path) -> Project:
        """The repository's own dvc.yaml and stages around a small corpus and a small proxy."""
        root.mkdir(parents=True)
        for name in ("dvc.yaml", "runtime.yaml", ".dvcignore", ".gitattributes"):
            shutil.copy(REPOSITORY / name, root / name)
        for name in ("stages", "tokenizers"):
            shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        (root / ".gitignore").write_text("/build/\n/.olmix/\n")
        project = cls(root)
        project.write("mixtures/accepted.yaml", "domains: {}\n")
        project.write("mixtures/sketches.jsonl", "")
        project.write("external/README.md", (REPOSITORY / "external/README.md").read_text())
        content = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
        content["domains"] = {name: {"path": f"data/{name}"} for name in DOMAINS}
        content["descriptions"] = {"web": "sentences"}
        content["tokenizer"]["path"] = "tokenizers/bytes.json"
        content["tasks"]["families"] = {"language": ["code-task", "web-task"], "reasoning": ["math-task"]}
        content["objective"]["weights"] = {"language": 1, "reasoning": 1}
        content["target"] = {"tokens": 60_000, "repetition": 4}
        content["proxy"] |= {
            "size": {"layers": 1, "heads": 2, "width": 32, "hidden": 48}, "sequence_length": 32,
            "tokens": 8_192, "batch_size": 16, "learning_rate": 0.02,
        }  # fmt: skip
        content["reuse"]["tolerance"] = 0
        content["fit"]["replicates"] = 8
        content["validate"]["seeds"] = 2
        project.params = content
        for name in DOMAINS:
            write_shards(root / f"data/{name}", documents(name))
        for name in ("code", "math", "web"):
            write_task(root / f"data/tasks/{name}-task.jsonl", documents(name, 20, version=99))
        project.git("init", "-q", "-b", "main")
        project.dvc("init", "-q")
        project.dvc("add", "-q", *(f"data/{name}" for name in (*DOMAINS, "tasks")))
        project.commit("data")
        return project

    @classmethod
    def create_accepted(cls, root: Path) -> Project:
        """The same with a first mixture: built, accepted and committed in half a minute, by processes of their own."""
        project = cls(cls.create(root).root, forked=False)
        project.repro()
        project.olmix("accept", "--anyway")
        project.repro()
        project.commit("first mixture, accepted")
        return project

    def copy(self, root: Path) -> Project:
        """The same project, cache and journal included, elsewhere."""
        shutil.copytree(self.root, root, symlinks=True)
        return Project(root)

    @property
    def params(self) -> dict[str, Any]:
        """params.yaml."""
        content: dict[str, Any] = yaml.safe_load((self.root / "params.yaml").read_text())
        return content

    @params.setter
    def params(self, content: Mapping[str, Any]) -> None:
        self.write("params.yaml", yaml.safe_dump(dict(content), sort_keys=False))

    def declare(self, **domains: str | None) -> None:
        """Declare domains with their paths in params.yaml, or remove those that are None."""
        content = self.params
        for name, path in domains.items():
            content["domains"].pop(name, None)
            if path is not None:
                content["domains"][name] = {"path": path}
        self.params = content

    def write(self, path: str, text: str) -> None:
        """Write a file of the project."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def command(self, *words: str) -> Ran:
        """Run a command of the environment in the project."""
        if self.forked and warm.runs(words, ENVIRONMENT):
            return Ran(warm.run(words, self.root, ENVIRONMENT))
        return Ran(subprocess.run(words, cwd=self.root, env=ENVIRONMENT, capture_output=True, text=True, check=False))

    def expect(self, *words: str) -> Ran:
        """Run a command that must succeed."""
        ran = self.command(*words)
        assert ran.code == 0, f"{' '.join(words)}: {ran.code}\n{ran.out}\n{ran.err}"
        return ran

    def git(self, *words: str) -> str:
        """Run git and return what it printed."""
        return self.expect("git", *words).out

    def dvc(self, *words: str) -> Ran:
        """Run dvc."""
        return self.expect("dvc", *words)

    def repro(self) -> Ran:
        """`dvc repro`."""
        return self.expect("dvc", "repro")

    def olmix(self, *words: str) -> Ran:
        """Run olmix."""
        return self.expect("olmix", *words)

    def commit(self, message: str) -> None:
        """Commit everything that git does not ignore."""
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def mixture(self, name: str = "proposed") -> dict[str, Any]:
        """A mixture file."""
        content: dict[str, Any] = yaml.safe_load((self.root / f"mixtures/{name}.yaml").read_text())
        return content

    def weights(self, name: str = "proposed") -> dict[str, float]:
        """Weights of a mixture file."""
        return {domain: row["weight"] for domain, row in self.mixture(name)["domains"].items()}

    def json(self, path: str) -> Any:
        """A JSON file of the project."""
        return json.loads((self.root / path).read_text())

    def plan(self) -> Any:
        """`olmix plan --json`."""
        return json.loads(self.olmix("plan", "--json").out)

    def outputs(self) -> dict[str, bytes]:
        """Every file below build/ and mixtures/."""
        files = [p for folder in ("build", "mixtures") for p in sorted((self.root / folder).rglob("*")) if p.is_file()]
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in files}
