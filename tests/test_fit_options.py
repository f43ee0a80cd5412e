"""What `olmix fit` is asked: which runs, tasks and limits an option stands for, and one line for what cannot be.

A refusal is one line on standard error and exit code 1, before anything is fitted, and nothing is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import yaml
from pydantic_core import PydanticUndefined

from olmix.cli.main import cli
from olmix.config.fit_options import FitOptions
from olmix.laws.registry import CHOOSABLE, law_kinds
from tests.swarm_tables import CAPS, DOMAINS, FIT, RUNS, SHARES, TABLES, TASK_KEYS, TOKENS, Swarm, another, olmix, text

DOCS = Path(__file__).parent.parent / "docs" / "fit.md"


def options_of(command: str) -> dict[str, click.Option]:
    """The options of a command by their names in the YAML file, or of the command alone."""
    chosen = cli.commands[command]
    return {str(o.name): o for o in chosen.get_params(click.Context(chosen)) if isinstance(o, click.Option)}


@pytest.fixture
def swarm(tmp_path: Path) -> Swarm:
    return Swarm(tmp_path)


def test_every_key_of_a_file_is_an_option_with_its_help_and_default() -> None:
    options, page = options_of("fit"), olmix(DOCS.parent, "fit", "--help").out
    assert re.findall(r"^ +(--[a-z-]+)", page, re.MULTILINE) == [option.opts[0] for option in options.values()]
    for name, field in FitOptions.model_fields.items():
        if name in ("ratios", "metrics"):
            assert f"[{name.upper()}]" in page
            continue
        option = options[field.alias or name]
        assert field.description
        silent = any(field.default is nothing for nothing in (None, False, PydanticUndefined))
        shown = "" if silent else f"  [default: {field.default}]".replace(".0]", "]")
        assert option.help == field.description + shown
        assert option.default is None or option.multiple, "a default of the command line would beat the file"


def test_a_sweep_has_the_options_of_a_fit_that_bear_on_its_law_and_its_problem() -> None:
    fit, sweep = options_of("fit"), options_of("sweep")
    assert set(fit) - set(sweep) == {"replicates", "curve"}
    assert set(sweep) - set(fit) == {"lambdas", "repetitions", "targets"}
    assert sweep["out"].help == "Folder for sweep.json and sweep.png.  [default: sweep]"


def test_the_guide_lists_the_options_as_the_model_declares_them() -> None:
    table = DOCS.read_text().split("\n## Options\n")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `--")]
    assert rows == [
        f"| `{option.opts[0]}{f' {option.metavar}' if option.metavar else ''}` | "
        f"{f'`{key}`' if key in {*FitOptions.model_fields, 'lambda'} else ''} | "
        f"{(option.help or '').replace('  [default: ', ' Default: `').replace(']', '`')} |"
        for key, option in options_of("fit").items()
        if option.opts[0] not in ("--config", "--json", "--help")
    ]


def test_options_of_a_file_are_those_of_the_command_line(swarm: Swarm) -> None:
    options = {
        "ratios": "ratios.csv",
        "metrics": "metrics.csv",
        "priors": "priors.json",
        "reference": "natural",
        "law": "linear",
        "lambda": 0.02,
        "target_tokens": "30B",
        "repetition": 5,
        "groups": {"exact": ["algebra", "python"]},
        "weights": {"exact": 2},
        "runs": 18,
        "seed": 4,
        "replicates": 3,
        "out": "of-file",
    }
    swarm.write_tables()
    swarm.write("fit.yaml", yaml.safe_dump(options))
    swarm.command("fit", "--config", "fit.yaml")
    words = (
        "--reference natural --law linear --lambda 0.02 --target-tokens 30B --repetition 5 "
        "--group exact=algebra,python --weight exact=2 --runs 18 --seed 4 --replicates 3 --out of-line"
    )
    swarm.fit(*words.split())
    assert swarm.outputs("of-file") == swarm.outputs("of-line")
    swarm.write("wrong.yaml", yaml.safe_dump({**options, "lambda": 0.5, "law": "nearest", "out": "nowhere"}))
    swarm.command("fit", "--config", "wrong.yaml", *words.split()[2:])
    assert swarm.outputs("of-line") == swarm.outputs("of-file")
    assert not (swarm.root / "nowhere").exists()


def test_runs_are_chosen_as_scikit_learn_chooses_them(swarm: Swarm) -> None:
    split = pytest.importorskip("sklearn.model_selection").train_test_split
    train, _ = split(list(swarm.ratios), train_size=15, random_state=7)
    swarm.write("ids.txt", "\n".join(train) + "\n")
    swarm.fit("--runs", "15", "--seed", "7")
    swarm.fit("--ids", "ids.txt", "--seed", "7", "--out", "ids")
    assert swarm.diagnostics()["runs"]["used"] == 15
    assert swarm.outputs() == swarm.outputs("ids")
    swarm.fit("--runs", "15", "--seed", "8", "--out", "other")
    assert swarm.weights("other") != swarm.weights()


def test_a_dropped_metric_is_as_if_it_were_not_there(swarm: Swarm) -> None:
    swarm.metrics["r03"]["python"] = ""
    swarm.metrics["r04"]["python"] = "0"  # an accuracy may be
    swarm.fit("--drop", "python")
    assert swarm.diagnostics()["runs"] == {"used": RUNS, "set_aside": []}
    other = another(swarm, "other")
    other.metrics = {run: {t: c for t, c in cells.items() if t != "python"} for run, cells in other.metrics.items()}
    other.fit()
    assert swarm.outputs() == other.outputs()


def test_a_run_that_lacks_a_used_metric_is_set_aside_and_named(swarm: Swarm) -> None:
    swarm.metrics["r03"]["python"] = "NaN"
    ran = swarm.fit()
    assert "\n1 run excluded, missing a metric: r03 (python)\n" in ran.out
    assert swarm.diagnostics()["runs"] == {"used": 23, "set_aside": [{"run": "r03", "missing": ["python"]}]}
    swarm.write("ids.txt", "\n".join(run for run in swarm.ratios if run != "r03"))
    swarm.fit("--ids", "ids.txt", "--out", "ids")
    assert swarm.weights("ids") == swarm.weights()


def test_a_group_is_the_mean_of_its_metrics(swarm: Swarm) -> None:
    swarm.fit("--group", "exact=algebra,python")
    other = another(swarm, "other")
    for cells in other.metrics.values():
        cells["exact"] = repr((float(cells.pop("algebra")) + float(cells.pop("python"))) / 2)
    other.fit()
    assert set(swarm.diagnostics()["tasks"]) == {"exact", "reading"}
    assert swarm.weights() == pytest.approx(other.weights(), abs=2e-6)
    found, expected = (s.diagnostics()["tasks"]["exact"] for s in (swarm, other))
    for key in TASK_KEYS - {"noise"}:
        assert found[key] == pytest.approx(expected[key], rel=1e-6)


def test_weights_are_of_tasks_and_families_and_only_their_proportions_matter(swarm: Swarm) -> None:
    families = {"exact": ["algebra", "both"], "words": ["reading"]}
    preset = {"groups": {"both": {"python": 3, "extra": 1}}, "drop": ["noise"], "families": families}
    swarm.write("mine.yaml", yaml.safe_dump(preset))
    for run, cells in swarm.metrics.items():
        swarm.metrics[run] = {**cells, "extra": cells["python"], "noise": "0"}
    swarm.fit("--preset", "mine.yaml", "--weight", "exact=3")
    assert swarm.diagnostics()["task_weights"] == pytest.approx({"algebra": 3 / 7, "both": 3 / 7, "reading": 1 / 7})
    again = ("--preset", "mine.yaml", "--weight", "exact=6", "--weight", "reading=2")
    swarm.fit(*again, "--out", "again")
    assert swarm.outputs() == swarm.outputs("again")
    swarm.fit(*again, "--weight", "both=0", "--out", "own")
    assert swarm.diagnostics("own")["task_weights"] == pytest.approx({"algebra": 6 / 8, "both": 0, "reading": 2 / 8})
    assert swarm.weights("own")["code"] < swarm.weights()["code"] - 0.05


def test_a_masked_cell_counts_for_nothing(swarm: Swarm) -> None:
    masked = {"r02", "r05", "r11"}
    swarm.write("mask.csv", "run,python\n" + "".join(f"{run},{int(run not in masked)}\n" for run in swarm.metrics))
    swarm.write("ones.csv", "run,python\n" + "".join(f"{run},1\n" for run in list(swarm.metrics)[:5]))
    swarm.fit("--mask", "ones.csv", "--out", "ones")
    swarm.fit("--mask", "mask.csv")
    other = another(swarm, "other")
    for run in masked:
        other.metrics[run]["python"] = "99"
    other.fit("--mask", "../mask.csv")
    assert swarm.outputs() == other.outputs()
    left = [float(cells["python"]) for run, cells in swarm.metrics.items() if run not in masked]
    assert swarm.diagnostics()["tasks"]["python"]["highest_bpb"] == max(left)
    whole = swarm.diagnostics("ones")
    assert whole["proposal"] != swarm.diagnostics()["proposal"]
    assert whole["tasks"]["reading"]["rmse"] == pytest.approx(swarm.diagnostics()["tasks"]["reading"]["rmse"])


@pytest.mark.parametrize("law", [*sorted(law_kinds()), "auto"])
def test_every_law(swarm: Swarm, law: str) -> None:
    words = ["--law", law, "--replicates", "2"]
    if law == "lightgbm":  # trees are slow: one task is enough
        pytest.importorskip("lightgbm")
        words += ["--runs", "8", "--drop", "python", "--drop", "reading", "--replicates", "0"]
    ran = swarm.fit(*words)
    chosen = swarm.diagnostics()["law"]
    assert chosen == ("log-linear" if law == "auto" else law)
    assert swarm.mixture().sections["law"] == chosen
    assert f"\nlaw {chosen}: {law_kinds()[chosen].summary}\n" in ran.out
    weights = swarm.weights()
    assert round(sum(weights.values()) * 10**6) == 10**6
    assert all(weights[name] <= CAPS[name] for name in DOMAINS)
    certificate = swarm.mixture().sections["certificate"]
    assert ("gap" in certificate) == (chosen in CHOOSABLE)
    assert ("searched" in certificate) == (chosen not in CHOOSABLE)
    assert ("choice" in swarm.diagnostics()) == (law == "auto")
    if law == "auto":
        choice = swarm.diagnostics()["choice"]
        table = ran.out.split("\n\n")[1].splitlines()
        assert table[0].split()[0] == "law"
        scores = {line.split()[0]: line.split()[3] for line in table[1:-1]}
        assert scores == {name: f"{found['score']:.3f}" for name, found in choice["laws"].items()}
        assert list(scores) == sorted(scores, key=lambda name: -choice["laws"][name]["score"])
        assert table[-1].startswith("Chosen: log-linear, the reference")


@pytest.mark.parametrize("reference", ["priors", "natural", "uniform"])
def test_a_large_lambda_gives_the_reference_within_the_caps(swarm: Swarm, reference: str) -> None:
    swarm.fit("--reference", reference, "--lambda", "1e4", "--target-tokens", "5B")
    total = sum(TOKENS.values())
    expected = {
        "priors": SHARES,
        "natural": {name: tokens / total for name, tokens in TOKENS.items()},
        "uniform": dict.fromkeys(DOMAINS, 0.25),
    }[reference]
    assert swarm.weights() == pytest.approx(expected, abs=1e-4)
    assert swarm.mixture().sections["reference"] == pytest.approx(expected, abs=1e-6)


def test_tokens_alone_make_the_reference_natural(swarm: Swarm) -> None:
    swarm.fit("--reference", "natural")
    swarm.write("tokens.yaml", yaml.safe_dump(TOKENS))
    swarm.fit("--priors", "tokens.yaml", "--out", "tokens")
    assert swarm.outputs() == swarm.outputs("tokens")


def test_unknown_keys_of_a_file_come_with_a_close_one(swarm: Swarm) -> None:
    swarm.write("fit.yaml", "lamda: 0.1\nrepetitions: 4\n")
    assert swarm.refused("--config", "fit.yaml") == (
        "fit.yaml: lamda: unknown key; did you mean lambda?; repetitions: unknown key; did you mean repetition?"
    )
    swarm.write("also.yaml", "also: [{ratio: a.csv, ratios: a.csv, metrics: b.csv}]\n")
    assert swarm.refused("--config", "also.yaml") == "also.yaml: also.0.ratio: unknown key; did you mean ratios?"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- ratios.csv\n", "fit.yaml: contains list, not a mapping of options"),
        ("law: [\n", "fit.yaml:2: not valid YAML here: "),
        ("runs: 12\nruns: 13\n", "fit.yaml:2: not valid YAML here: duplicate key 'runs'"),
        ("runs: many\n", "fit.yaml: runs: input should be a valid integer"),
        ("drop: python\n", "fit.yaml: drop: input should be a valid list"),
        ("groups: {exact: []}\n", "fit.yaml: groups.exact: "),
        ("groups: {exact: {algebra: -1}}\n", "fit.yaml: groups.exact.algebra: input should be greater than 0"),
        ("preset: olmes-52\ngroups: {exact: [algebra]}\n", "fit.yaml: preset and groups: give only one of them"),
        ("runs: 12\nids: ids.txt\n", "fit.yaml: runs and ids: give only one of them"),
        ("folds: 1\n", "fit.yaml: folds: input should be greater than 1"),
        ("reference: priorities\n", "fit.yaml: reference: input should be 'priors', 'natural' or 'uniform'"),
    ],
)
def test_a_file_of_options_that_cannot_be(swarm: Swarm, content: str, message: str) -> None:
    swarm.write("fit.yaml", content)
    assert swarm.refused("--config", "fit.yaml").startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--law", "loglinear"], "no law 'loglinear'; the laws are auto, autoscale, bimix, diminishing, "
         "gaussian-process, lightgbm, linear, log-linear, nearest, square-root"),
        (["--runs", "25"], "metrics.csv: cannot choose 25 of 24 runs; choose from 1 to 24"),
        (["--runs", "0"], "olmix fit: runs: input should be greater than 0"),
        (["--runs", "4"], "4 runs with distinct mixtures are too few for law log-linear, which needs 5 for 4 sampled "),
        (["--runs", "3", "--law", "auto"], "3 runs with distinct mixtures are too few for law auto, which needs 4"),
        (["--replicates", "-1"], "olmix fit: replicates: input should be greater than or equal to 0"),
        (["--seed", "-1"], "olmix fit: seed: input should be greater than or equal to 0"),
        (["--target-tokens", "lots"], "olmix fit: target_tokens: write a whole number, or a number with k, M, B or T"),
        (["--target-tokens", "-1T"], "olmix fit: target_tokens: write a whole number"),
        (["--target-tokens", "0"], "olmix fit: target_tokens: input should be greater than 0"),
        (["--target-tokens", "1.5"], "olmix fit: target_tokens: write a whole number"),
        (["--target-tokens", "1e30"], "olmix fit: target_tokens: input should be less than 9223372036854"),
        (["--repetition", "0"], "olmix fit: repetition: input should be greater than 0"),
        (["--repetition", "inf"], "olmix fit: repetition: input should be a finite number"),
        (["--lambda", "nan"], "olmix fit: "),
        (["--lambda", "-0.1"], "olmix fit: "),
        (["--drop", "pyton"], "metrics.csv: no metric 'pyton' (dropped); did you mean 'python'?"),
        (["--drop", "algebra", "--drop", "python", "--drop", "reading"], "metrics.csv: all 3 metrics are dropped"),
        (["--group", "a=algebra,pyton"], "metrics.csv: no metric 'pyton' (in group 'a'); did you mean 'python'?"),
        (["--group", "python=algebra"], "metrics.csv: group 'python' has the name of a metric outside it"),
        (["--group", "a=python", "--group", "b=python"], "metrics.csv: metric 'python' is in groups 'a' and 'b'"),
        (["--weight", "pyton=2"], "weights: pyton: no such task; the tasks are algebra, python, reading"),
        (["--weight", "python=-1"], "olmix fit: weights.python: input should be greater than or equal to 0"),
        (["--weight", "python=nan"], "olmix fit: weights.python: input should be a finite number"),
        (["--weight", "python=0", "--weight", "algebra=0", "--weight", "reading=0"], "weights: all tasks have weight"),
        (["--drop", "python", "--weight", "python=2"], "weights: python: no such task; the tasks are algebra, reading"),
        (["--preset", "olmes"], "preset 'olmes': no such preset; the built-in ones are olmes-52"),
        (["--preset", "olmes-52"], "metrics.csv: preset olmes-52 does not fit: 105 of its 105 metrics are missing"),
        (["--preset", "none.yaml"], "none.yaml: no such file"),
        (["--priors", "none.json"], "none.json: no such file"),
        (["--priors", "."], ".: "),
        (["--ids", "none.txt"], "none.txt: no such file"),
        (["--ids", "."], ".: cannot be read: Is a directory"),
        (["--mask", "none.csv"], "none.csv: no such file"),
        (["--config", "none.yaml"], "none.yaml: no such file"),
        (["--config", "."], ".: cannot be read: Is a directory"),
        (["--also", "none.csv", "metrics.csv"], "none.csv: no such file"),
    ],
)  # fmt: skip
def test_options_that_cannot_be(swarm: Swarm, words: list[str], message: str) -> None:
    assert swarm.refused(*words).startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit"], "ratios: missing; give both files, as `olmix fit RATIOS METRICS`, or name them in --config"),
        (["fit", "ratios.csv"], "metrics: missing; give both files"),
        (
            ["fit", *TABLES[:2], "--target-tokens", "1T"],
            "olmix fit: priors: missing; target tokens and a reference need",
        ),
        (["fit", *TABLES[:2], "--reference", "natural"], "olmix fit: priors: missing"),
        (["fit", "none.csv", "metrics.csv"], "none.csv: no such file"),
        (["fit", "ratios.csv", "none.csv"], "none.csv: no such file"),
        (["fit", ".", "metrics.csv"], ".: tables must be .csv or .parquet files"),
        (["fit", "ratios.csv", "folder.csv"], "folder.csv: cannot be read: Is a directory"),
        (["fit", "metrics.csv", "ratios.csv"], "metrics.csv: run 'r"),
    ],
)
def test_tables_that_are_not_there(swarm: Swarm, words: list[str], message: str) -> None:
    (swarm.root / "folder.csv").mkdir()
    assert swarm.refused(command=words).startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weight", "python"], "error: --weight python: write NAME=VALUE"),
        (["--weight", "python=much"], "error: --weight python: 'much' is not a number"),
        (["--group", "=python"], "error: --group =python: write NAME=VALUE"),
        (["--also-domain", "a=b"], "error: --also-domain needs --also"),
        (["--reference", "mine"], "error: Invalid value for '--reference': 'mine' is not one of 'priors', 'natural', "),
        (["--replicates", "few"], "error: Invalid value for '--replicates': 'few' is not a valid integer; see"),
        (["--laws", "auto"], "error: No such option"),
    ],
)
def test_words_that_are_no_options_end_as_usage_errors_do(swarm: Swarm, words: list[str], message: str) -> None:
    swarm.write_tables()
    before = swarm.files()
    ran = olmix(swarm.root, *FIT, *words)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(message)
    assert ran.err.endswith("; see `olmix fit --help`\n")
    assert ran.err.count("\n") == 1
    assert swarm.files() == before


def cell(table: str, run: str, column: str, value: str) -> Callable[[Swarm], None]:
    def change(swarm: Swarm) -> None:
        getattr(swarm, table)[run][column] = value

    return change


def removed(table: str, run: str) -> Callable[[Swarm], None]:
    return lambda swarm: getattr(swarm, table).pop(run) and None


def twice(name: str, table: str) -> Callable[[Swarm], None]:
    def change(swarm: Swarm) -> None:
        cells = getattr(swarm, table)
        swarm.write(name, text(cells, [*cells, "r03"]))

    return change


def constant(swarm: Swarm) -> None:
    for cells in swarm.metrics.values():
        cells["python"] = "1.5"


def few(swarm: Swarm) -> None:
    swarm.ratios = {run: swarm.ratios[run] for run in list(swarm.ratios)[:4]}
    swarm.metrics = {run: swarm.metrics[run] for run in swarm.ratios}


def alike(swarm: Swarm) -> None:
    for cells in swarm.ratios.values():
        cells.update(dict.fromkeys(DOMAINS, "0.25"))


def prior(section: str, domain: str, value: object) -> Callable[[Swarm], None]:
    def change(swarm: Swarm) -> None:
        swarm.priors[section].pop(domain, None)
        if value is not None:
            swarm.priors[section][domain] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (twice("ratios.csv", "ratios"), "ratios.csv: duplicate ids: 'r03' at 5 and 26"),
        (twice("metrics.csv", "metrics"), "metrics.csv: duplicate ids: 'r03' at 5 and 26"),
        (removed("metrics", "r05"), "ratios.csv, metrics.csv: runs joined by 'run' and 'run': 1 only in ratios.csv"),
        (removed("ratios", "r05"), "ratios.csv, metrics.csv: runs joined by 'run' and 'run': 1 only in metrics.csv"),
        (cell("metrics", "r03", "python", "low"), "metrics.csv: line 5, column 'python': 'low' is not a number"),
        (cell("ratios", "r03", "code", "much"), "ratios.csv: line 5, column 'code': 'much' is not a number"),
        (cell("metrics", "r03", "python", "inf"), "metrics.csv: line 5, column 'python': 'inf' is not finite"),
        (cell("metrics", "r03", "python", "0"), "metrics.csv: run 'r03', metric 'python': 0 is not a BPB, which"),
        (cell("ratios", "r03", "code", "2"), "ratios.csv: run 'r03': weights sum to 2."),
        (cell("ratios", "r03", "code", "-0.1"), "ratios.csv: run 'r03', domain 'code': weight -0.1; weights must"),
        (cell("ratios", "r03", "code", ""), "ratios.csv: run 'r03', domain 'code': no weight"),
        (constant, "metrics.csv: metrics with the same value in all 24 runs, which teach a law nothing: 'python' (1"),
        (few, "4 runs with distinct mixtures are too few for law log-linear, which needs 5 for 4 sampled domains"),
        (alike, "1 runs with distinct mixtures are too few"),
        (prior("relative_sizes", "law", 0.1), "priors.json: relative_sizes: domains: 1 are not in the swarm (law)"),
        (prior("token_counts", "law", 5), "priors.json: token_counts: domains: 1 are not in the swarm (law)"),
        (prior("relative_sizes", "web", None), "priors.json: relative_sizes: domains: 1 of the swarm are missing (w"),
        (prior("token_counts", "web", None), "priors.json: token_counts: domains: 1 of the swarm are missing (w"),
        (prior("token_counts", "web", 1.5), "priors.json: token_counts: web: tokens 1.5 is not a whole number > 0"),
        (prior("relative_sizes", "web", 0), "priors.json: relative_sizes: web: share 0 is not a finite number > 0"),
        (lambda swarm: swarm.priors.pop("token_counts"), "priors.json: token_counts: missing"),
        (lambda swarm: swarm.write("priors.json", "{"), "priors.json: not JSON: "),
        (lambda swarm: swarm.write("metrics.csv", ""), "metrics.csv: an empty file"),
        (lambda swarm: swarm.write("metrics.csv", "run,python\n"), "metrics.csv: column names but no rows"),
        (lambda swarm: swarm.write("metrics.csv", "id;python\nr00;1\n"), "metrics.csv: line 1: columns must be separ"),
        (lambda swarm: swarm.write("metrics.csv", "id,python\nr00,1\n"), "metrics.csv: no id column among 'id', 'pyt"),
    ],
)  # fmt: skip
def test_tables_and_priors_that_cannot_be(swarm: Swarm, change: Callable[[Swarm], object], message: str) -> None:
    change(swarm)
    assert swarm.refused().startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("run,pyton\nr00,1\n", "mask.csv: masks pyton, "),
        (
            "run,python\nr00,0.5\n",
            "mask.csv: not only 0 and 1; write 1 where a run counts for a task and 0 where it does not",
        ),
        ("run,python\nr00,\n", "mask.csv: not only 0 and 1"),
        ("run,python\nr00,1\nr00,0\n", "mask.csv: duplicate ids: 'r00'"),
        ("run,python\n" + "".join(f"r{k:02d},0\n" for k in range(RUNS)), "mask.csv: masks every run of python"),
    ],
)
def test_masks_that_cannot_be(swarm: Swarm, content: str, message: str) -> None:
    swarm.write("mask.csv", content)
    assert swarm.refused("--mask", "mask.csv").startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("r00\nr99\n", "ids.txt: 1 of 2 ids are not in metrics.csv: 'r99'"),
        ("r00\nr00\n", "ids.txt: duplicate ids: 'r00' at 1 and 2"),
        ("\n", "ids.txt: no ids"),
    ],
)
def test_ids_that_cannot_be(swarm: Swarm, content: str, message: str) -> None:
    swarm.write("ids.txt", content)
    assert swarm.refused("--ids", "ids.txt").startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--also-domain", "fora=math"], "--also-domain: fora: no older swarm has such a domain"),
        (["--also-domain", "forum=web"], "old-metrics.csv: two domains would be called web; map one of them to"),
        (["--also-domain", "books=a", "--also-domain", "code=b", "--also-domain", "web=c"],
         "old-metrics.csv: shares no domain with metrics.csv: it has a, b, forum, c"),
        (["--group", "both=algebra,python", "--drop", "reading"], "old-metrics.csv: was measured on none of the 1 t"),
    ],
)  # fmt: skip
def test_older_swarms_that_cannot_join(swarm: Swarm, words: list[str], message: str) -> None:
    ratios, metrics = swarm.older()
    if "both=algebra,python" in words:
        path = swarm.root / metrics
        path.write_text(path.read_text().replace("python", "snake"))
    assert swarm.refused("--also", ratios, metrics, *words).startswith(message)


def test_limits_that_cannot_be_met_say_what_to_raise_and_that_is_enough(swarm: Swarm) -> None:
    said = swarm.refused("--target-tokens", "200B")
    short = 200_000_000_000 - 4 * sum(TOKENS.values())
    assert said.startswith("priors.json: 200,000,000,000 tokens cannot be drawn with repetition 4: the domains ")
    assert f" ({short:,} tokens short); " in said
    enough = re.search(r"raise --repetition to ([0-9.]+) or lower", said)
    assert enough is not None
    swarm.fit("--target-tokens", "200B", "--repetition", enough[1])
    weights = swarm.weights()
    assert all(weights[name] <= float(enough[1]) * TOKENS[name] / 200e9 for name in DOMAINS)
    assert round(sum(weights.values()) * 10**6) == 10**6
    less = f"{float(enough[1]) - 0.001:.3f}"
    assert "cannot be drawn" in swarm.refused("--target-tokens", "200B", "--repetition", less)


@pytest.mark.parametrize(("tokens", "target"), [((1, 1, 1, 4), "14B"), ((4, 3, 1, 20), "28000100000000")])
def test_the_limit_that_is_named_is_always_enough(swarm: Swarm, tokens: tuple[int, ...], target: str) -> None:
    swarm.priors = {name: count * 10**9 for name, count in zip(DOMAINS, tokens, strict=True)}
    said = swarm.refused("--target-tokens", target, "--repetition", "1")
    enough = re.search(r"raise --repetition to ([0-9.]+) or lower", said)
    assert enough is not None
    swarm.fit("--target-tokens", target, "--repetition", enough[1])


def test_a_target_beyond_all_numbers(swarm: Swarm) -> None:
    assert "target_tokens" in swarm.refused("--target-tokens", "1e400")


@pytest.mark.parametrize("out", ["priors.json", "priors.json/fit", "/proc/fit"])
def test_an_output_folder_that_cannot_be_written(swarm: Swarm, out: str) -> None:
    assert "cannot be written" in swarm.refused("--out", out)


def test_a_curve_of_too_few_runs(swarm: Swarm) -> None:
    assert "curve" in swarm.refused("--runs", "6", "--curve")


def test_a_mask_of_unknown_runs(swarm: Swarm) -> None:
    swarm.write("mask.csv", "run,python\nr99,0\n")
    assert "r99" in swarm.refused("--mask", "mask.csv")


@pytest.mark.parametrize("words", [["--group", "a=algebra", "--group", "a=python"],
                                   ["--weight", "python=1", "--weight", "python=3"]])  # fmt: skip
def test_a_name_that_is_given_twice(swarm: Swarm, words: list[str]) -> None:
    swarm.write_tables()
    ran = olmix(swarm.root, *FIT, *words)
    assert ran.code == 1


def test_no_bpb_in_an_older_swarm(swarm: Swarm) -> None:
    ratios, metrics = swarm.older()
    lines = (swarm.root / metrics).read_text().splitlines()
    lines[3] = ",".join([*lines[3].split(",")[:-1], "-1"])
    swarm.write(metrics, "\n".join(lines))
    assert "old-metrics.csv: run 'old02', metric 'reading': -1" in swarm.refused("--also", ratios, metrics)


def test_lambda_is_called_lambda(swarm: Swarm) -> None:
    assert swarm.refused("--lambda", "-1").startswith("olmix fit: lambda: ")


def test_a_mistake_is_looked_for_where_it_is(swarm: Swarm) -> None:
    swarm.write("fit.yaml", "law: linear\n")
    assert "fit.yaml" not in swarm.refused("--config", "fit.yaml", "--repetition", "0")
