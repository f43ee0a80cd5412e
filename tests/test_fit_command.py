"""`olmix fit` from outside: what it writes and prints, and that the same runs give the same bytes."""

from __future__ import annotations

import json
import math
import struct
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from olmix.artifacts.mixture_file import read_mixture
from olmix.core.seeds import generator
from olmix.laws.registry import CHOOSABLE
from tests.project import ENVIRONMENT, REPOSITORY
from tests.public_swarms import FOLDER, needs_swarms
from tests.swarm_tables import (
    CAPS,
    DOMAINS,
    FIT,
    RUNS,
    SHARES,
    TABLES,
    TARGET,
    TASK_KEYS,
    TASKS,
    TOKENS,
    Swarm,
    another,
    bpb,
    olmix,
    rows,
    succeeds,
    text,
)

GOLDEN = Path(__file__).parent / "golden"
PROPOSAL_KEYS = {
    "weights", "predicted", "gain", "moved", "laws", "leverage", "nearest_run", "mirage", "certificate",
}  # fmt: skip


@pytest.fixture
def swarm(tmp_path: Path) -> Swarm:
    return Swarm(tmp_path)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Swarm:
    """The swarm as it is, fitted; tests read it and change nothing."""
    swarm = Swarm(tmp_path_factory.mktemp("fitted"))
    (swarm.root / "stdout").write_text(swarm.fit("--replicates", "5").out)
    return swarm


def shuffled(cells: dict[str, dict[str, str]], *names: str) -> str:
    """The file with its rows in another order."""
    runs = list(cells)
    return text(cells, [runs[k] for k in generator("shuffled", *names).permutation(len(runs))])


def test_the_mixture_file_reads_back(fitted: Swarm) -> None:
    file = fitted.mixture()
    weights = file.mixture.weights
    assert list(weights) == sorted(DOMAINS)
    assert round(math.fsum(weights.values()) * 10**6) == 10**6
    assert {name: share.tokens for name, share in file.mixture.domains.items()} == TOKENS
    assert all(weights[name] <= CAPS[name] for name in DOMAINS)
    assert weights["math"] == 0.222222  # of a cap of 0.2222222222
    assert {name: use.capped for name, use in file.uses.items()} == {name: name == "math" for name in sorted(DOMAINS)}
    for name, use in file.uses.items():
        assert use.repetition == pytest.approx(weights[name] * TARGET / TOKENS[name], abs=5e-4)
    assert set(file.sections) == {"predicted", "certificate", "law", "fit", "reference", "target"}
    assert file.sections["target"] == {"tokens": TARGET, "repetition": 4.0}
    assert file.sections["reference"] == SHARES
    assert file.sections["certificate"]["kl_weight"] == 0.05
    q = {name: weight for name, weight in weights.items() if weight > 0}
    divergence = math.fsum(weight * math.log(weight / SHARES[name]) for name, weight in q.items())
    assert file.sections["certificate"]["kl_to_reference"] == pytest.approx(divergence, abs=1e-6)


def test_diagnostics_hold_the_fit_and_the_proposal(fitted: Swarm) -> None:
    found = fitted.diagnostics()
    assert set(found["tasks"]) == set(TASKS)
    for name, task in found["tasks"].items():
        assert set(task) == TASK_KEYS
        assert task["noise"] is None  # no run was repeated
        seen = [float(cells[name]) for cells in fitted.metrics.values()]
        assert (task["lowest_bpb"], task["highest_bpb"]) == (min(seen), max(seen))
        assert 0.95 < task["spearman"] < 1
        assert 0.95 < task["pearson"] < 1
        assert 0.002 < task["rmse"] < 0.01  # the noise is 0.003
        assert 0 < task["loss"] < 1e-4
    assert set(found["mean"]) == {"spearman", "pearson", "rmse"}
    assert found["design"]["rank"] == found["design"]["coordinates"] == len(DOMAINS)
    assert found["task_weights"] == pytest.approx(dict.fromkeys(TASKS, 1 / 3))
    assert found["runs"] == {"used": RUNS, "set_aside": []}
    assert found["repeats"] == {"distinct": RUNS, "runs": RUNS, "degrees_of_freedom": 0}
    assert found["never_sampled"] == []
    proposal = found["proposal"]
    assert set(proposal) >= PROPOSAL_KEYS
    assert set(proposal["laws"]) == set(CHOOSABLE) - {"log-linear"}
    assert proposal["certificate"]["gap"] <= 1e-9
    bpb = {name: value["bpb"] for name, value in proposal["predicted"].items()}
    assert bpb["unconstrained"] < bpb["proposal"] < bpb["baseline"]
    assert proposal["gain"]["bpb"] == pytest.approx(bpb["baseline"] - bpb["proposal"])
    assert 0 < proposal["gain"]["low"] <= proposal["gain"]["high"]
    weights = fitted.weights()
    for name, row in proposal["weights"].items():
        assert row["weight"] == pytest.approx(weights[name], abs=1e-6)
        assert row["low"] <= row["high"]
        assert (row["price"] is not None) == (name == "math")
    nearest = proposal["nearest_run"]
    mixture = {name: float(cell) for name, cell in fitted.ratios[nearest["run"]].items()}
    assert nearest["total_variation"] == pytest.approx(sum(abs(mixture[n] - weights[n]) for n in DOMAINS) / 2, abs=1e-5)


def test_the_plots_are_png(swarm: Swarm) -> None:
    ran = swarm.fit("--runs", "9", "--curve", "--out", "here/and there", plots=True)
    plots = {name: content for name, content in swarm.outputs("here/and there").items() if name.endswith(".png")}
    assert set(plots) == {"plots/mixture.png", "plots/out-of-fold.png", "plots/curve.png"}
    for content in plots.values():
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert content.endswith(b"IEND\xaeB`\x82")
        assert min(struct.unpack(">II", content[16:24])) > 200
    assert sorted(ran.err.removeprefix("wrote ").strip().split(", ")) == sorted(
        f"here/and there/{name}" for name in ("mixture.yaml", "diagnostics.json", *plots)
    )
    curves = swarm.diagnostics("here/and there")["curves"]
    assert set(curves) == set(CHOOSABLE)
    assert [p["runs"] for p in curves["linear"]["points"]] == sorted(p["runs"] for p in curves["linear"]["points"])
    table = ran.out[ran.out.index("Learning curve") :].splitlines()
    assert [line.split()[0] for line in table[2 : 2 + len(CHOOSABLE)]] == sorted(CHOOSABLE)
    assert "9, 18, 36 runs" in table[1]


def test_what_is_printed(fitted: Swarm) -> None:
    out = (fitted.root / "stdout").read_text()
    assert out.startswith("24 runs, 4 domains, 3 tasks of metrics.csv\nlaw log-linear: c + exp(t . p)")
    assert "out of fold: Spearman 0." in out
    shown = {line.split()[0]: line.split() for line in out.splitlines() if line.split()[:1] in [[d] for d in DOMAINS]}
    for name, weight in fitted.weights().items():
        assert shown[name][1] == f"{weight:.4f}"
        assert shown[name][3] == f"{SHARES[name]:.4f}"
        assert ("cap" in shown[name]) == (name == "math")
    for line in ("predicted ", "other runs ", "other laws ", "design ", "never sampled  none", "nearest run ",
                 "mirage ", "without caps ", "caps           1 bind", "solver         duality gap "):  # fmt: skip
        assert f"\n{line}" in out


def test_the_law_is_chosen_unless_one_is_named(swarm: Swarm) -> None:
    ran = swarm.command("fit", *TABLES, "--replicates", "0")
    table = ran.out[ran.out.index("\nlaw  ") :].splitlines()
    assert table[1].split() == ["law", "Spearman,", "tasks", "of", "the", "mean", "score"]
    assert {line.split()[0] for line in table[2 : 2 + len(CHOOSABLE)]} == set(CHOOSABLE)
    assert table[2 + len(CHOOSABLE)].startswith("Chosen: ")
    assert swarm.diagnostics()["choice"]["law"] == swarm.mixture().sections["law"]


def test_laws_that_agree_on_the_gain_raise_no_doubt(fitted: Swarm) -> None:
    assert "\nbelieve it?    no doubts\n" in (fitted.root / "stdout").read_text()
    assert fitted.diagnostics()["proposal"]["doubts"] == []


def test_laws_that_disagree_by_more_than_the_gain_are_a_doubt(swarm: Swarm) -> None:
    """Runs that hold little of a domain whose first tokens gain most, and a proposal that asks for much of it."""
    draw = generator("laws that disagree")
    mixtures = np.round(draw.dirichlet([20, 20, 1, 50], size=RUNS), 9)
    swarm.ratios = rows("r", DOMAINS, mixtures, 9)
    diminishing = bpb(mixtures) - 0.5 + 0.5 * np.exp(-2 * mixtures[:, 2:3] ** 0.6)
    swarm.metrics = rows("r", TASKS, diminishing + draw.normal(0, 0.003, (RUNS, len(TASKS))), 12)
    ran = swarm.fit()
    proposal = swarm.diagnostics()["proposal"]
    gain = proposal["gain"]["bpb"]
    gains = [gain, *(law["gain"] for law in proposal["laws"].values())]
    spread = max(gains) - min(gains)
    assert spread > gain
    doubt = f"the laws disagree by {spread:#.2g} on a gain of {gain:#.2g}"
    assert doubt in proposal["doubts"]
    assert f" of 8 questions raise doubts: {proposal['doubts'][0]}" in ran.out
    assert doubt in ran.out


def test_json_prints_the_file(swarm: Swarm) -> None:
    ran = swarm.fit("--json")
    assert ran.out.rstrip("\n") + "\n" == (swarm.root / "fit/diagnostics.json").read_text()
    assert ran.err == "wrote fit/mixture.yaml, fit/diagnostics.json\n"


def test_without_priors_the_laws_are_judged_and_nothing_is_proposed(swarm: Swarm) -> None:
    ran = swarm.command("fit", "ratios.csv", "metrics.csv", "--replicates", "0", plots=True)
    assert ran.out.endswith("\n\nNo proposal: give the tokens of the domains with --priors.\n")
    assert set(swarm.outputs()) == {"diagnostics.json", "plots/out-of-fold.png"}
    assert "proposal" not in swarm.diagnostics()


def test_without_a_target_no_domain_has_a_cap(swarm: Swarm) -> None:
    ran = swarm.command("fit", "ratios.csv", "metrics.csv", "--priors", "priors.json", "--replicates", "0")
    assert "caps           none binds" in ran.out
    assert swarm.weights()["math"] > CAPS["math"] + 0.1
    assert not any(use.repetition is not None or use.capped for use in swarm.mixture().uses.values())
    assert "target" not in swarm.mixture().sections


def in_another_order(swarm: Swarm) -> Swarm:
    """The same swarm with the rows of both files shuffled, each in its own way."""
    other = another(swarm, "other")
    other.write("ratios.csv", shuffled(other.ratios, "ratios"))
    other.write("metrics.csv", shuffled(other.metrics, "metrics"))
    return other


def test_the_same_runs_give_the_same_bytes_in_any_order(swarm: Swarm) -> None:
    words = ("--replicates", "3")
    swarm.fit(*words, plots=True)
    swarm.fit(*words, "--out", "again", plots=True)
    other = in_another_order(swarm)
    other.fit(*words, plots=True)
    assert len(swarm.outputs()) == 4
    assert swarm.outputs() == swarm.outputs("again") == other.outputs()


@pytest.mark.parametrize("law", ["log-linear", "auto", "gaussian-process"])
def test_neither_the_choice_of_runs_nor_that_of_a_law_depends_on_the_order(swarm: Swarm, law: str) -> None:
    words = ["--law", law, "--runs", "9", "--seed", "3", "--replicates", "3"]
    words += ["--curve"] if law == "log-linear" else []
    swarm.fit(*words)
    other = in_another_order(swarm)
    other.fit(*words)
    assert set(swarm.outputs()) == {"mixture.yaml", "diagnostics.json"}
    assert swarm.outputs() == other.outputs()


def test_a_byte_order_mark_line_ends_and_parquet_change_nothing(fitted: Swarm, tmp_path: Path) -> None:
    windows = Swarm(tmp_path)
    for name, cells in (("ratios.csv", windows.ratios), ("metrics.csv", windows.metrics)):
        windows.write(name, b"\xef\xbb\xbf" + text(cells, id_column="run_id").replace("\n", "\r\n").encode())
    windows.fit("--replicates", "5")
    assert windows.outputs() == fitted.outputs()
    for name in ("ratios", "metrics"):
        frame = pl.read_csv(fitted.root / f"{name}.csv")
        frame.write_parquet(windows.root / f"{name}.parquet")
    windows.command("fit", "ratios.parquet", "metrics.parquet", *FIT[3:], "--replicates", "5", "--out", "parquet")
    assert windows.outputs("parquet") == fitted.outputs()


def test_runs_are_joined_by_id_and_not_by_where_they_stand(fitted: Swarm, tmp_path: Path) -> None:
    """An index of one file alone puts its rows into another order than those of the other."""
    swarm = Swarm(tmp_path)
    swarm.ratios = {run: {**cells, "index": str(RUNS - k)} for k, (run, cells) in enumerate(swarm.ratios.items())}
    swarm.fit()
    assert swarm.weights() == pytest.approx(fitted.weights(), abs=2e-6)


def test_the_file_of_a_known_law_is_golden(tmp_path: Path) -> None:
    """Runs without noise determine the law, and so the proposal, far beyond six decimals."""
    swarm = Swarm(tmp_path, noise=0.0)
    swarm.fit()
    assert (tmp_path / "fit/mixture.yaml").read_text() == (GOLDEN / "fit-mixture.yaml").read_text()


def test_repeated_runs_are_one_mixture_and_show_the_noise(swarm: Swarm) -> None:
    for run, again, shift in (("r00", "s0", 0.01), ("r00", "s1", -0.01), ("r04", "s2", 0.02)):
        swarm.ratios[again] = dict(swarm.ratios[run])
        swarm.metrics[again] = {task: f"{float(c) + shift:.12f}" for task, c in swarm.metrics[run].items()}
    ran = swarm.fit()
    noise = math.sqrt((2 * 0.01**2 + 2 * 0.01**2) / 3)
    line = f"24 distinct mixtures; repeated runs differ by {noise:.4f} BPB per task (standard deviation, 3 degrees"
    assert line in ran.out
    assert ran.out.startswith("27 runs, ")
    found = swarm.diagnostics()
    assert found["repeats"] == {"distinct": 24, "runs": 27, "degrees_of_freedom": 3}
    assert [task["noise"] for task in found["tasks"].values()] == pytest.approx([noise] * 3)


def test_a_domain_that_no_run_read_is_named(swarm: Swarm) -> None:
    for cells in swarm.ratios.values():
        rest = 1 - float(cells["books"])
        cells.update({name: f"{float(c) / rest:.9f}" if name != "books" else "0" for name, c in cells.items()})
    ran = swarm.fit()
    assert swarm.diagnostics()["never_sampled"] == ["books"]
    assert "never sampled  books: their weights are a guess, without data" in ran.out
    assert 0.1 < swarm.weights()["books"] < 0.3  # a neutral guess near its reference, 0.2


def test_an_older_swarm_joins_and_its_own_domains_get_no_weight(swarm: Swarm) -> None:
    older = swarm.older()
    few = ("--runs", "6", "--law", "linear")  # to which the 18 old runs have much to add
    ran = swarm.fit("--also", *older, *few)
    assert "\nolder swarm 1: 18 runs, each run has weight " in ran.out
    found = swarm.diagnostics()
    assert found["design"]["coordinates"] == 5
    assert found["older_swarms"][0]["runs"] == 18
    assert found["older_swarms"][0]["weight"] in {tried["weight"] for tried in found["older_swarms"][0]["tried"]} - {0}
    assert found["proposal"]["weights"]["forum"]["weight"] == 0
    assert found["runs"]["used"] == 6
    assert set(swarm.weights()) == set(DOMAINS)
    assert round(sum(swarm.weights().values()) * 10**6) == 10**6
    assert not any(line.startswith("forum") for line in ran.out.splitlines())
    words = ("--also", *older, "--also-domain", "code=code-2024", *few)
    swarm.fit(*words, "--out", "revised")
    assert swarm.diagnostics("revised")["design"]["coordinates"] == 6
    assert swarm.diagnostics("revised")["proposal"]["weights"]["code-2024"]["weight"] == 0
    assert set(swarm.weights("revised")) == set(DOMAINS)
    swarm.write("also.yaml", yaml.safe_dump(
        {"also": [{"ratios": older[0], "metrics": older[1], "domains": {"code": "code-2024"}}]}
    ))  # fmt: skip
    swarm.fit("--config", "also.yaml", *few, "--out", "of-file")
    assert swarm.outputs("revised") == swarm.outputs("of-file")


def test_an_older_swarm_that_hurts_is_left_out(swarm: Swarm) -> None:
    older = swarm.older()
    ran = swarm.fit("--also", *older, "--also-domain", "forum=math", "--law", "linear")  # forum was no math
    assert "older swarm 1: 18 runs, excluded, since it does not improve predictions" in ran.out
    assert swarm.diagnostics()["older_swarms"][0]["weight"] == 0
    swarm.fit("--law", "linear", "--out", "alone")
    assert swarm.outputs()["mixture.yaml"] == swarm.outputs("alone")["mixture.yaml"]


def test_diff_and_show_read_the_mixture(swarm: Swarm) -> None:
    swarm.fit()
    swarm.fit("--lambda", "0.2", "--out", "other")
    ran = olmix(swarm.root, "diff", "fit/mixture.yaml", "other/mixture.yaml", "--json")
    moved = json.loads(ran.out)
    a, b = swarm.weights(), swarm.weights("other")
    assert moved["total_variation"] == pytest.approx(sum(abs(a[n] - b[n]) for n in DOMAINS) / 2, abs=1e-6)
    (swarm.root / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    ran = olmix(swarm.root, "show", "fit/mixture.yaml")
    assert (ran.code, ran.err) == (0, "")
    for name, weight in a.items():
        assert any(line.split()[:2] == [name, f"{weight:.4f}"] for line in ran.out.splitlines())
    assert json.loads(olmix(swarm.root, "show", "fit/mixture.yaml", "--json").out)["domains"]["math"]["capped"]


def test_names_that_mean_something_else_to_yaml(swarm: Swarm) -> None:
    names = dict(zip(DOMAINS, ("on", "1.5", "null", "a: b #c"), strict=True))
    swarm.ratios = {run: {names[d]: c for d, c in cells.items()} for run, cells in swarm.ratios.items()}
    swarm.priors = {section: {names[d]: v for d, v in values.items()} for section, values in swarm.priors.items()}
    swarm.fit()
    assert list(swarm.weights()) == sorted(names.values())
    assert swarm.mixture().mixture.domains["null"].tokens == TOKENS["math"]
    assert set(swarm.mixture().sections["reference"]) == set(names.values())


def test_show_reads_the_mixture_without_a_project(fitted: Swarm) -> None:
    ran = olmix(fitted.root, "show", "fit/mixture.yaml")
    assert (ran.code, ran.err) == (0, "")


def test_an_older_swarm_may_lack_a_task(swarm: Swarm) -> None:
    ratios, metrics = swarm.older()
    lines = (swarm.root / metrics).read_text().splitlines()
    swarm.write(metrics, "\n".join(line.rpartition(",")[0] for line in lines))
    ran = swarm.fit("--also", ratios, metrics, "--law", "linear")
    assert "older swarm 1: 18 runs" in ran.out


def test_without_caps_too_only_the_newest_domains_get_weight(swarm: Swarm) -> None:
    swarm.fit("--also", *swarm.older(), "--law", "linear", "--runs", "6")
    unconstrained = {name: row["unconstrained"] for name, row in swarm.diagnostics()["proposal"]["weights"].items()}
    assert unconstrained["forum"] == 0
    assert sum(unconstrained.values()) == pytest.approx(1)


def test_outputs_are_written_all_or_none(swarm: Swarm) -> None:
    swarm.write_tables()
    (swarm.root / "fit").mkdir()
    swarm.write("fit/plots", "a file in the way")
    before = swarm.files()
    assert olmix(swarm.root, *FIT).code == 1
    assert swarm.files() == before


def test_the_console_script(swarm: Swarm) -> None:
    swarm.write_tables()

    def console(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["olmix", *words]
        return subprocess.run(command, cwd=swarm.root, env=ENVIRONMENT, capture_output=True, text=True, check=False)

    ran = console(*FIT)
    assert ran.returncode == 0
    assert (
        ran.stderr == "wrote fit/mixture.yaml, fit/diagnostics.json, fit/plots/mixture.png, fit/plots/out-of-fold.png\n"
    )
    assert ran.stdout.startswith("24 runs, 4 domains")
    other = another(swarm, "other")
    other.fit(plots=True)
    assert swarm.outputs() == other.outputs()
    ran = console(*FIT, "--runs", "25", "--out", "none")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "error: metrics.csv: cannot choose 25 of 24 runs; choose from 1 to 24\n"
    assert not (swarm.root / "none").exists()


def published_distance(root: Path, *words: str) -> float:
    """L1 from the published mixture of step 0 to the one that `olmix fit` writes."""
    files = [str(FOLDER / "dclm" / name) for name in ("ratios.csv", "metrics.csv", "priors.json")]
    (root / "quick.yaml").write_text("replicates: 0\nfolds: 2\n")  # which the mixture does not depend on
    succeeds(
        root, "fit", files[0], files[1], "--priors", files[2], "--config", "quick.yaml", "--preset", "olmes-52",
        "--law", "log-linear", "--target-tokens", "1T", *words,
    )  # fmt: skip
    step = json.loads((FOLDER / "update-sequence.json").read_text())[0]
    published = {name.removeprefix("dclm:"): share for name, share in step["published_mixture"].items()}
    weights = read_mixture(root / "fit/mixture.yaml").mixture.weights
    assert set(weights) == set(published)
    return sum(abs(weights[name] - published[name]) for name in weights)


@needs_swarms
def test_reproduces_the_published_mixture_and_no_control_does(tmp_path: Path) -> None:
    distance = published_distance(tmp_path, "--runs", "64", "--seed", "0")
    assert distance <= 0.10
    controls = (
        ["--runs", "64", "--seed", "1"],
        [],
        ["--runs", "64", "--lambda", "0.1"],
        ["--runs", "64", "--reference", "natural"],
    )
    assert min(published_distance(tmp_path, *words) for words in controls) > distance


@needs_swarms
def test_a_public_swarm_of_old_and_new_domains(tmp_path: Path) -> None:
    """Update 5: `existing` stands for 43 frozen domains beside 21 topics; the law of a reuse swarm."""
    folder = FOLDER / "partition-pdfs"
    ran = succeeds(
        tmp_path, "fit", str(folder / "ratios.csv"), str(folder / "metrics.csv"), "--priors",
        str(folder / "priors.json"), "--preset", "olmes-52", "--law", "linear", "--weight", "math=2", "--replicates",
        "5", "--target-tokens", "1T",
    )  # fmt: skip
    assert ran.out.startswith("64 runs, 22 domains, 52 tasks of ")
    weights = read_mixture(tmp_path / "fit/mixture.yaml").mixture.weights
    tokens = json.loads((folder / "priors.json").read_text())["token_counts"]
    assert all(weights[name] <= 4 * tokens[name] / 1e12 for name in weights)
    assert round(np.sum(list(weights.values())) * 10**6) == 10**6
    shares = json.loads((tmp_path / "fit/diagnostics.json").read_text())["task_weights"]
    assert sorted(set(np.round(list(shares.values()), 12))) == [round(1 / 59, 12), round(2 / 59, 12)]
