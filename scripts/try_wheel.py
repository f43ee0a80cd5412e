"""Build the wheel and try it in a clean environment that holds nothing but it and what it requires.

`python scripts/try_wheel.py [FOLDER]` leaves the wheel in FOLDER (default: dist). Needs Python alone, and a package
index: without one it ends with 77, the exit code of a skipped check.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
SKIPPED = 77
DOMAINS = {"books": 4_000_000_000, "code": 3_000_000_000, "web": 20_000_000_000}
TASKS = {"python": (0.2, -1.4, 0.1), "reading": (-0.9, 0.3, -0.6)}
TABLES = ("ratios.csv", "metrics.csv", "--priors", "priors.json")
COMMANDS: dict[str, Sequence[str]] = {
    "fit": (*TABLES, "--target-tokens", "20B", "--replicates", "5"),
    "sweep": (*TABLES, "--targets", "20B", "--lambdas", "0.05"),
    "show": ("fit/mixture.yaml",),
    "diff": ("fit/mixture.yaml", "fit/mixture.yaml"),
}


def write_tables(folder: Path, runs: int = 16) -> None:
    """A swarm whose tasks follow the log-linear law, as `olmix fit` reads it."""
    draw = random.Random(0)  # noqa: S311  # a made-up swarm
    ratios, metrics = [",".join(["run", *DOMAINS])], [",".join(["run", *TASKS])]
    for k in range(runs):
        parts = [draw.gammavariate(1, 1) for _ in DOMAINS]
        weights = [part / sum(parts) for part in parts]
        bpb = [0.5 + math.exp(sum(a * p for a, p in zip(law, weights, strict=True))) for law in TASKS.values()]
        ratios.append(",".join(map(str, [k, *weights])))
        metrics.append(",".join(map(str, [k, *bpb])))
    (folder / "ratios.csv").write_text("\n".join(ratios) + "\n")
    (folder / "metrics.csv").write_text("\n".join(metrics) + "\n")
    (folder / "priors.json").write_text(json.dumps(DOMAINS))


def environment(folder: Path, wheel: Path) -> Path:
    """Make a virtual environment with the wheel in it, and return the folder of its programs."""
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    _pip(programs / "python", "install", str(wheel))
    return programs


def _pip(python: str | Path, *words: str) -> None:
    subprocess.run([python, "-m", "pip", "--quiet", "--disable-pip-version-check", *words], check=True)  # noqa: S603


def build(folder: Path) -> Path:
    """Build the wheel into `folder`, where it becomes the only one of olmix."""
    for old in folder.glob("olmix-*.whl"):
        old.unlink()
    _pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(folder), str(REPOSITORY))
    (wheel,) = folder.glob("olmix-*.whl")
    return wheel


def try_commands(programs: Path, folder: Path) -> None:
    """Run what the base install is for, and one command that needs more; raises SystemExit with what went wrong."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=folder, env=clean, capture_output=True, text=True, check=False)  # noqa: S603

    olmix, python = str(programs / "olmix"), str(programs / "python")
    for words in ((olmix, "--help"), *((olmix, command, *rest) for command, rest in COMMANDS.items())):
        done = run(*words)
        if done.returncode or "Traceback" in done.stderr:
            sys.exit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    heavy = run(python, "-c", "from importlib.util import find_spec; print(*filter(find_spec, ('torch', 'dvc')))")
    if heavy.stdout.strip():
        sys.exit(f"the base install brings {heavy.stdout.strip()}")
    project = run(olmix, "plan")
    if project.returncode != 1 or project.stderr.count("\n") != 1 or "'olmix[pipeline]'" not in project.stderr:
        sys.exit(f"olmix plan without its packages: exit code {project.returncode}\n{project.stderr}")


def main() -> None:
    """Build, install, try."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else REPOSITORY / "dist").resolve()
    with tempfile.TemporaryDirectory() as temporary:
        tables = Path(temporary)
        try:
            _pip(sys.executable, "download", "--no-deps", "--dest", temporary, "hatchling")
        except subprocess.CalledProcessError:
            print("no package index: the wheel was not tried", file=sys.stderr)
            sys.exit(SKIPPED)
        start = time.monotonic()
        wheel = build(folder)
        programs = environment(tables / "venv", wheel)
        installed = time.monotonic() - start
        write_tables(tables)
        try_commands(programs, tables)
        size = sum(path.stat().st_size for path in (tables / "venv").rglob("*") if path.is_file())
    print(f"{wheel.name}: {', '.join(COMMANDS)} work; {size / 1e6:,.0f} MB, built and installed in {installed:.0f} s")


if __name__ == "__main__":
    main()
