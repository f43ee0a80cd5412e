"""`olmix sweep` from outside: every cell a mixture within its caps, merged into choices, of tables or of a project."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml

from olmix.artifacts.law_file import write_fit
from olmix.artifacts.mixture_file import MixtureFile
from olmix.artifacts.plan_file import plan_to_json
from olmix.cli import sweep as sweeping
from olmix.cli.main import sweep as sweep_command
from olmix.core.dataset import Dataset, Domain
from olmix.core.limits import Target
from olmix.core.plan import EMPTY, Reuse, make_plan
from olmix.core.seeds import generator, named_key
from olmix.files import write_json
from olmix.fit.fitting import FitSettings
from olmix.fit.sweep import SAME_CHOICE
from olmix.stages.fit import fit_laws
from olmix.stages.propose import propose
from tests.project import ENVIRONMENT, HERE, REPOSITORY
from tests.public_swarms import FOLDER, needs_swarms
from tests.swarm_tables import DOMAINS, SWEEP, TABLES, TOKENS, Swarm, olmix, succeeds, text
from tests.test_outputs import results

# 0.1 and 0.102 lead to one mixture, 0.1 and 0.13 to two that are near each other.
LAMBDAS, REPETITIONS, TARGETS = (0.02, 0.1, 0.102, 0.13), (1.0, 4.0), (5 * 10**9, 20 * 10**9, 80 * 10**9)
GRID = ("--lambdas", "0.02,0.1,0.102,0.13", "--repetitions", "1,4", "--targets", "5B,20B,80B")


@pytest.fixture
def swarm(tmp_path: Path) -> Swarm:
    return Swarm(tmp_path)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swarm:
    """The swarm as it is, swept over GRID; tests read it and change nothing."""
    swarm = Swarm(tmp_path_factory.mktemp("swept"))
    ran = swarm.sweep(*GRID)
    assert ran.err == "wrote sweep/sweep.json, sweep/sweep.png\n"
    (swarm.root / "stdout").write_text(ran.out)
    return swarm


def cells(swarm: Swarm, folder: str = "sweep") -> Any:
    return json.loads((swarm.root / folder / "sweep.json").read_text())


def distance(a: dict[str, float], b: dict[str, float]) -> float:
    return sum(abs(a[name] - b[name]) for name in a) / 2


def test_every_cell_is_solved_within_its_caps(swept: Swarm) -> None:
    found = cells(swept)
    assert [(c["target_tokens"], c["repetition"], c["lambda"]) for c in found] == [
        (target, repetition, kl) for target in TARGETS for repetition in REPETITIONS for kl in LAMBDAS
    ]
    for cell in found:
        caps = {name: min(1.0, cell["repetition"] * n / cell["target_tokens"]) for name, n in TOKENS.items()}
        assert cell["feasible"] == (sum(caps.values()) >= 1)
        if not cell["feasible"]:
            assert (cell["weights"], cell["bpb"], cell["kl"], cell["capped"], cell["group"]) == (None,) * 5
            continue
        weights = cell["weights"]
        assert set(weights) == set(DOMAINS)
        assert sum(weights.values()) == pytest.approx(1, abs=1e-12)
        assert all(weights[name] <= caps[name] for name in DOMAINS)
        assert cell["capped"] == sum(weights[name] == caps[name] < 1 for name in DOMAINS)
    by = {(c["target_tokens"], c["repetition"], c["lambda"]): c for c in found}
    assert not by[80_000_000_000, 1.0, 0.02]["feasible"]
    for target in TARGETS:
        for repetition in REPETITIONS:
            row = [by[target, repetition, kl] for kl in LAMBDAS]
            for little, much in itertools.pairwise(cell for cell in row if cell["feasible"]):
                assert little["kl"] >= much["kl"]  # nearer to the reference, promising less
                assert little["bpb"] <= much["bpb"] + 1e-12


def test_a_group_is_one_mixture(swept: Swarm) -> None:
    feasible = [cell for cell in cells(swept) if cell["feasible"]]
    firsts: dict[int, dict[str, float]] = {}
    for cell in feasible:
        assert cell["group"] <= len(firsts)
        first = firsts.setdefault(cell["group"], cell["weights"])
        assert distance(first, cell["weights"]) <= SAME_CHOICE
    near = [distance(a, b) for a, b in itertools.combinations(firsts.values(), 2)]
    assert SAME_CHOICE < min(near) < 3 * SAME_CHOICE
    for group, mixture in firsts.items():
        assert all(distance(mixture, firsts[g]) > SAME_CHOICE for g in range(group))
    assert len(firsts) < len(feasible)  # caps of 4 N / 20B are those of N / 5B


def test_what_is_printed(swept: Swarm) -> None:
    lines = (swept.root / "stdout").read_text().splitlines()
    found = cells(swept)
    groups = {cell["group"] for cell in found if cell["feasible"]}
    assert lines[0].split()[:2] == ["mixture", "BPB"]
    assert [line.split()[0] for line in lines[1 : 1 + len(groups)]] == [chr(ord("A") + g) for g in sorted(groups)]
    for group, line in zip(sorted(groups), lines[1:], strict=False):
        cell = next(c for c in found if c["group"] == group)
        assert line.split()[1:4] == [f"{cell['bpb']:.4f}", f"{cell['kl']:.3f}", str(cell["capped"])]
        top = sorted(cell["weights"].items(), key=lambda item: -item[1])[:3]
        assert ", ".join(f"{name} {share:.2f}" for name, share in top) in line
        size = f"{cell['target_tokens'] // 10**9}B"
        assert f"({cell['lambda']:g}, {cell['repetition']:g}, {size})" in line
    assert (
        lines[-2]
        == "infeasible: too few tokens in the domains: (0.02, 1, 80B) (0.1, 1, 80B) (0.102, 1, 80B) and 1 more"
    )
    assert lines[-1] == f"24 settings, {len(groups)} mixtures (those within a total variation of 0.01 count as one)."


def test_a_cell_is_what_fit_proposes(swept: Swarm, swarm: Swarm) -> None:
    swarm.fit("--lambda", "0.1")
    cell = next(c for c in cells(swept) if (c["target_tokens"], c["repetition"], c["lambda"]) == (TARGETS[1], 4.0, 0.1))
    assert swarm.weights() == pytest.approx(cell["weights"], abs=1e-6)
    assert swarm.diagnostics()["proposal"]["predicted"]["proposal"]["bpb"] == pytest.approx(cell["bpb"], abs=1e-12)


def test_the_same_runs_give_the_same_bytes_in_any_order(swept: Swarm, swarm: Swarm) -> None:
    order = {name: generator("sweep", name).permutation(len(swarm.ratios)) for name in ("ratios", "metrics")}
    for name, rows in (("ratios", swarm.ratios), ("metrics", swarm.metrics)):
        swarm.write(f"{name}.csv", text(rows, [list(rows)[k] for k in order[name]]))
    ran = swarm.sweep(*GRID, "--json", "--out", "there")
    assert swarm.outputs("there") == swept.outputs("sweep")
    assert ran.out.rstrip("\n") + "\n" == (swarm.root / "there/sweep.json").read_text()
    assert swarm.outputs("there")["sweep.png"].startswith(b"\x89PNG\r\n\x1a\n")


def test_without_lists_it_sweeps_around_the_target(swarm: Swarm) -> None:
    swarm.write("options.yaml", "target_tokens: 2B\nlaw: linear\nrepetition: 4\nreplicates: 100000\ncurve: true\n")
    words = ("sweep", "ratios.csv", "metrics.csv", "--priors", "priors.json", "--config", "options.yaml")
    ran = swarm.command(*words)
    found = cells(swarm)
    assert {c["target_tokens"] for c in found} == {500_000_000, 2_000_000_000, 8_000_000_000}
    assert {c["lambda"] for c in found} == {0.01, 0.02, 0.05, 0.1, 0.2}
    assert {c["repetition"] for c in found} == {1, 2, 4, 8}
    assert len(found) == 60
    assert "infeasible" not in ran.out
    swarm.command(*words, "--target-tokens", "4B", "--lambdas", "0.1", "--repetitions", "4", "--out", "other")
    assert [c["target_tokens"] for c in cells(swarm, "other")] == [10**9, 4 * 10**9, 16 * 10**9]


def test_the_options_of_fit_reach_the_law(swarm: Swarm) -> None:
    small = ("--lambdas", "0.05", "--repetitions", "4", "--targets", "20B")
    for name, words in {
        "plain": [],
        "law": ["--law", "linear"],
        "runs": ["--runs", "12", "--seed", "5"],
        "weight": ["--weight", "python=5"],
        "drop": ["--drop", "reading"],
        "reference": ["--reference", "uniform"],
    }.items():
        swarm.sweep(*small, *words, "--out", name)
        fitted = swarm.fit(*words, "--out", f"fit-{name}")
        assert fitted.code == 0
        assert swarm.weights(f"fit-{name}") == pytest.approx(cells(swarm, name)[0]["weights"], abs=1e-6)
        assert (name == "plain") == (cells(swarm, name) == cells(swarm, "plain"))


@pytest.mark.parametrize("law", ["auto", "nearest", "diminishing"])
def test_other_laws(swarm: Swarm, law: str) -> None:
    swarm.sweep("--law", law, "--lambdas", "0,0.1", "--repetitions", "4", "--targets", "20B")
    for cell in cells(swarm):
        assert sum(cell["weights"].values()) == pytest.approx(1, abs=1e-9)
        assert cell["weights"]["math"] <= 4 * TOKENS["math"] / 20e9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lambdas", "0.1,x"], "--lambdas: 'x' is not a number; write numbers separated by commas"),
        (["--lambdas", "0.1,"], "--lambdas: '' is not a number"),
        (["--lambdas", "0.1;0.2"], "--lambdas: '0.1;0.2' is not a number"),
        (["--lambdas", "-0.1"], "--lambdas: -0.1 must be a finite number >= 0"),
        (["--lambdas", "nan"], "--lambdas: nan must be a finite number >= 0"),
        (["--lambdas", "1e400"], "--lambdas: 1e400 must be a finite number >= 0"),
        (["--repetitions", "0"], "--repetitions: 0 must be a finite number > 0"),
        (["--repetitions", "4,inf"], "--repetitions: inf must be a finite number > 0"),
        (["--repetitions", "four"], "--repetitions: 'four' is not a number"),
        (["--targets", "1T,lots"], "--targets: 'lots': write a whole number, or a number with k, M, B or T"),
        (["--targets", "1T,"], "--targets: '': write a whole number"),
        (["--targets", "-1"], "--targets: '-1': write a whole number"),
        (["--targets", "1.5"], "--targets: '1.5': write a whole number"),
        (["--target-tokens", "lots"], "olmix fit: target_tokens: write a whole number"),
        (["--law", "loglinear"], "no law 'loglinear'; the laws are auto, "),
        (["--runs", "25"], "metrics.csv: cannot choose 25 of 24 runs; choose from 1 to 24"),
        (["--runs", "4"], "4 runs with distinct mixtures are too few for law log-linear, which needs 5"),
        (["--drop", "pyton"], "metrics.csv: no metric 'pyton' (dropped); did you mean 'python'?"),
        (["--priors", "none.json"], "none.json: no such file"),
        (["--config", "none.yaml"], "none.yaml: no such file"),
        (["--ids", "none.txt"], "none.txt: no such file"),
    ],
)
def test_options_that_cannot_be(swarm: Swarm, words: list[str], message: str) -> None:
    assert swarm.refused(*words, command=SWEEP).startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (TABLES[:4], "target tokens: missing; give --targets, or --target-tokens to sweep around"),
        ((*TABLES[:2], "--targets", "1T"), "priors: missing; a sweep needs the tokens of the domains"),
        ((), "params.yaml: no such file; run olmix in the root of the project"),
        (TABLES[2:], "ratios: missing; give both files"),
        (("none.csv", *TABLES[1:]), "none.csv: no such file"),
    ],
)
def test_what_a_sweep_needs(swarm: Swarm, words: tuple[str, ...], message: str) -> None:
    assert swarm.refused(command=("sweep", *words)).startswith(message)


def test_priors_without_tokens(swarm: Swarm) -> None:
    swarm.priors.pop("token_counts")
    assert swarm.refused(command=SWEEP).startswith("priors.json: token_counts: missing")


def test_a_sweep_of_nothing_feasible_says_so(swarm: Swarm) -> None:
    swarm.write_tables()
    command = ["olmix", *SWEEP, "--targets", "10T", "--lambdas", "0.1", "--repetitions", "1,2"]
    ran = subprocess.run(command, cwd=swarm.root, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0
    assert "infeasible: too few tokens in the domains: (0.1, 1, 10T) (0.1, 2, 10T)\n" in ran.stdout
    assert ran.stdout.endswith("2 settings, 0 mixtures (those within a total variation of 0.01 count as one).\n")
    assert ran.stderr.splitlines()[-1] == "wrote sweep/sweep.json, sweep/sweep.png"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MixtureFile:
    """A project whose pipeline got as far as its proposal, which is returned; its folder is the current one."""
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    params["domains"] = {name: {"path": f"data/{name}"} for name in "abc"}
    params["tasks"]["families"] = {"both": ["t0", "t1"]}
    params["objective"]["weights"] = {"t0": 3}
    params["target"] = {"tokens": 10_000, "repetition": 4}
    params["descriptions"] = {}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    domains = {name: Domain(named_key(name), tokens) for name, tokens in (("a", 900), ("b", 4000), ("c", 2000))}
    plan = make_plan(Dataset(domains), EMPTY, Reuse("none", ()))
    swarm = results(12)
    weights = {"t0": 3.0, "t1": 1.0}
    fit = fit_laws(swarm, swarm.runs, weights, FitSettings(replicates=0))
    write_json(HERE.plan, plan_to_json(plan))
    write_fit(HERE, fit)
    return propose(plan, fit.laws, weights, Target(10_000, 4), params["solve"]["kl"])


def test_in_a_project_it_sweeps_the_laws_of_the_last_swarm(project: MixtureFile) -> None:
    here = Path()
    kl = project.sections["certificate"]["kl_weight"]
    ran = succeeds(here, "sweep", "--lambdas", f"{kl},1000", "--repetitions", "4", "--targets", "10k")
    assert ran.err == "wrote sweep/sweep.json, sweep/sweep.png\n"
    found = json.loads(Path("sweep/sweep.json").read_text())
    assert found[0]["weights"] == pytest.approx(project.mixture.weights, abs=1e-6)
    assert found[0]["bpb"] == pytest.approx(project.sections["predicted"]["proposal"]["bpb"], abs=1e-6)
    assert found[0]["capped"] == 1
    assert found[1]["weights"] == pytest.approx({"a": 900 / 6900, "b": 4000 / 6900, "c": 2000 / 6900}, abs=1e-3)
    succeeds(here, "sweep", "--json")
    around = json.loads(Path("sweep/sweep.json").read_text())
    assert {cell["target_tokens"] for cell in around} == {2_500, 10_000, 40_000}


def test_a_project_without_a_law_says_what_to_do(project: MixtureFile) -> None:
    (Path("build/fit/law.json")).unlink()
    ran = olmix(Path(), "sweep")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "error: build/fit/law.json: no laws yet; run `dvc repro`, or give RATIOS and METRICS\n"


@needs_swarms
def test_the_public_proposal_moves_with_lambda_and_target(tmp_path: Path) -> None:
    """Step 0 of the public sequence is the cell of lambda 0.05, k = 4, R = 1T."""
    files = [str(FOLDER / "dclm" / name) for name in ("ratios.csv", "metrics.csv", "priors.json")]
    succeeds(
        tmp_path, "sweep", files[0], files[1], "--priors", files[2], "--preset", "olmes-52", "--runs", "64",
        "--law", "log-linear", "--lambdas", "0.025,0.05,0.1", "--repetitions", "4", "--targets", "1T,6T", "--out",
        str(tmp_path),
    )  # fmt: skip
    found = {(c["lambda"], c["target_tokens"]): c for c in json.loads((tmp_path / "sweep.json").read_text())}
    step = json.loads((FOLDER / "update-sequence.json").read_text())[0]
    published = {name.removeprefix("dclm:"): share for name, share in step["published_mixture"].items()}
    far = {key: 2 * distance(published, cell["weights"]) for key, cell in found.items() if key[1] == 10**12}
    assert far[0.05, 10**12] == min(far.values()) <= 0.10
    tokens = json.loads(Path(files[2]).read_text())["token_counts"]
    assert found[0.05, 6 * 10**12]["capped"] > found[0.05, 10**12]["capped"]
    for (_, target), cell in found.items():
        assert all(share <= 4 * tokens[name] / target for name, share in cell["weights"].items())
    assert np.diff([found[kl, 10**12]["kl"] for kl in (0.025, 0.05, 0.1)]).max() < 0


def test_an_older_swarm_of_other_domains(swarm: Swarm) -> None:
    swarm.sweep("--also", *swarm.older(), "--law", "linear", *GRID)
    assert all(set(cell["weights"]) == set(DOMAINS) for cell in cells(swarm) if cell["feasible"])


@pytest.mark.parametrize("target", ["0", "1e30", "1e400"])
def test_targets_that_are_no_counts(swarm: Swarm, target: str) -> None:
    assert target in swarm.refused("--targets", f"1T,{target}", command=SWEEP)


def test_a_target_whose_multiples_are_too_large(swarm: Swarm) -> None:
    swarm.refused("--target-tokens", "9000000000000000000", command=SWEEP)


@pytest.mark.parametrize("words", [["--lambda", "0.3"], ["--repetition", "2"]])
def test_options_that_a_sweep_cannot_use_are_refused(swarm: Swarm, words: list[str]) -> None:
    swarm.write_tables()
    assert olmix(swarm.root, *SWEEP, *words, "--targets", "20B").code == 1


@pytest.mark.parametrize("option", ["--lambdas", "--repetitions", "--targets"])
def test_an_empty_list_is_refused(swarm: Swarm, option: str) -> None:
    assert swarm.refused(option, "", command=SWEEP).startswith(f"{option}: ")


def test_the_folder_of_a_file_of_options(swarm: Swarm) -> None:
    swarm.write("options.yaml", "out: there\n")
    swarm.sweep("--config", "options.yaml", "--lambdas", "0.1", "--repetitions", "4")
    assert (swarm.root / "there/sweep.json").exists()


def test_an_output_folder_that_cannot_be_written(swarm: Swarm) -> None:
    swarm.refused("--out", "priors.json", command=SWEEP)


def test_a_sweep_of_nothing_feasible_warns_of_nothing(swarm: Swarm) -> None:
    swarm.write_tables()
    try:
        ran = olmix(swarm.root, *SWEEP, "--targets", "10T", "--lambdas", "0.1", "--repetitions", "1")
    except UserWarning as warning:
        raise AssertionError(str(warning)) from None
    assert ran.err == "wrote sweep/sweep.json, sweep/sweep.png\n"


def test_help_names_the_grid_that_is_used() -> None:
    options = {option.name: option.help or "" for option in sweep_command.params if isinstance(option, click.Option)}
    assert options["lambdas"].endswith(f"[default: {','.join(f'{value:g}' for value in sweeping.LAMBDAS)}]")
    assert options["repetitions"].endswith(f"[default: {','.join(f'{value:g}' for value in sweeping.REPETITIONS)}]")
