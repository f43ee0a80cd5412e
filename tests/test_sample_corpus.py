"""The sample corpus: the same bytes everywhere, nothing of a task trained on, tasks in taught formats."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmix.data.byte_pairs import END, byte_tokenizer
from olmix.data.tokenizer import Tokenizer
from olmix.errors import DataError
from olmix.sample_corpus import build as build_module
from olmix.sample_corpus.arithmetic import exercises, number_words, question_and_answer
from olmix.sample_corpus.build import FOLDERS, build, collect_domains
from olmix.sample_corpus.documents import Domain, collect, evenly, is_held_out, pieces
from olmix.sample_corpus.sources import docstrings, package_folder, separate, strip_python
from olmix.sample_corpus.stories import stories
from olmix.sample_corpus.tasks import FAMILIES, WINDOW

ROOT = Path(__file__).parent.parent
SCALE = 0.04
BYTES = Tokenizer(ROOT / "tokenizers" / "bytes.json", END)


@dataclass(frozen=True)
class Built:
    folder: Path
    table: str
    tokenizer: Tokenizer
    tasks: dict[str, list[dict[str, str]]]


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("sample") / "data"
    table = build(folder, scale=SCALE)
    tasks = {path.stem: read_lines(path) for path in sorted((folder / "tasks").iterdir())}
    return Built(folder, table, Tokenizer(folder / "tokenizer" / "tokenizer.json", END), tasks)


@pytest.fixture(scope="module")
def domains() -> dict[str, Domain]:
    return collect_domains(SCALE)


def test_another_process_builds_the_same_bytes(built: Built, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "olmix.sample_corpus", "--out", str(tmp_path), "--scale", str(SCALE)]
    environment = os.environ | {"PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == built.table
    assert contents(tmp_path) == contents(built.folder)


def test_folders_and_shards(built: Built, domains: dict[str, Domain]) -> None:
    assert sorted(path.name for path in built.folder.iterdir()) == sorted(FOLDERS)
    for name, domain in domains.items():
        shards = sorted((built.folder / name).iterdir())
        assert [shard.name for shard in shards] == [f"part-{i:02d}.jsonl" for i in range(len(shards))]
        assert [line["text"] for shard in shards for line in read_lines(shard)] == list(domain.train)


def test_no_held_out_document_is_trained_on(domains: dict[str, Domain]) -> None:
    trained = {text for domain in domains.values() for text in domain.train}
    for domain in domains.values():
        assert not any(map(is_held_out, domain.train))
        assert all(map(is_held_out, domain.held_out))
        assert not trained.intersection(domain.held_out)
        assert len(set(domain.train)) == len(domain.train)


@pytest.mark.parametrize("name", ["py", "cpp", "docs", "story"])
def test_text_tasks_are_cut_from_held_out_documents(built: Built, domains: dict[str, Domain], name: str) -> None:
    for item in built.tasks[f"{name}-held-out"]:
        assert any(item["continuation"] in text for text in domains[name].held_out)


def test_tasks_are_well_formed(built: Built) -> None:
    assert sorted(built.tasks) == sorted(name for family in FAMILIES.values() for name in family)
    for name, items in built.tasks.items():
        assert len(items) >= 5, name
        assert len({(item["prompt"], item["continuation"]) for item in items}) == len(items), name
        for item in items:
            assert sorted(item) == ["continuation", "prompt"]
            assert item["continuation"].strip()
            # Re-encoding a piece that was cut between two tokens may give one more.
            assert len(built.tokenizer.encode([item["prompt"] + item["continuation"]])[0]) <= WINDOW + 1, name


def test_exercises_are_right_and_in_a_format_that_math_teaches(built: Built, domains: dict[str, Domain]) -> None:
    figures = re.compile(r"(\d) ([+*-]) (\d) = (\d+)")
    for item in built.tasks["arithmetic"]:
        line = (item["prompt"] + item["continuation"]).splitlines()[-1]
        if match := figures.fullmatch(line):
            a, operator, b, answer = match.groups()
            assert {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[operator] == int(answer)
        else:
            assert re.fullmatch(r"[a-z]+ (plus|minus|times) [a-z]+ is [a-z-]+", line)
    for item in built.tasks["word-problems"]:
        assert item["prompt"].endswith("?")
        said = [int(number) for number in re.findall(r"\d+", item["prompt"])]
        answer = int(re.findall(r"\d+", item["continuation"])[0])
        assert answer in (said[0] + said[1], said[0] - said[1], said[0] * said[1])
    taught = "".join(domains["math"].train)
    assert " = " in taught and " is " in taught and " have? " in taught


def test_doctest_outputs_follow_their_statement(built: Built) -> None:
    for item in built.tasks["doctest-outputs"]:
        assert ">>> " in item["prompt"] and item["prompt"].endswith("\n")
        assert not item["continuation"].startswith((">>>", "..."))


def test_documents_are_short_ascii(domains: dict[str, Domain]) -> None:
    for domain in domains.values():
        assert all(text.isascii() and 0 < len(text) <= 2048 for text in domain.train + domain.held_out)


def test_natural_shares(built: Built, domains: dict[str, Domain]) -> None:
    tokens = {name: sum(map(len, built.tokenizer.encode(domain.train))) for name, domain in domains.items()}
    shares = {name: count / sum(tokens.values()) for name, count in tokens.items()}
    assert 0.05 <= shares["junk"] <= 0.10
    assert max(shares, key=lambda name: shares[name]) == "py"
    assert min(shares.values()) >= 0.05


def test_tokenizer_of_the_sample(built: Built) -> None:
    tokenizer = built.tokenizer
    assert tokenizer.vocabulary == 1024
    for text in ("1234567890", "x = 2024 * 3", "def f():\n\treturn 'ünïcode'\n", END):
        ids = tokenizer.encode([text])[0]
        assert tokenizer.decode(ids) == text
        assert tokenizer.end not in ids
    entries = orjson.loads(tokenizer.path.read_bytes())["model"]["vocab"]
    assert sorted(entry for entry in entries if re.search(r"\d", entry)) == list("0123456789")


@given(st.text())
def test_a_byte_is_a_token(text: str) -> None:
    ids = BYTES.encode([text])[0]
    assert ids.tolist() == list(text.encode())
    assert BYTES.decode(ids) == text


def test_byte_tokenizer_is_what_the_script_makes() -> None:
    assert (ROOT / "tokenizers" / "bytes.json").read_text(encoding="utf-8") == byte_tokenizer()
    assert (BYTES.vocabulary, BYTES.end) == (257, 256)


def test_built_once(built: Built, tmp_path: Path) -> None:
    before = contents(built.folder)
    assert "--force" in build(built.folder, scale=SCALE)
    assert contents(built.folder) == before
    (tmp_path / "py").mkdir()
    with pytest.raises(DataError, match=r"has py but not cpp.*--force"):
        build(tmp_path)
    with pytest.raises(DataError, match="--scale 2"):
        build(tmp_path, scale=2)


def test_force_replaces_and_leaves_other_folders(tmp_path: Path) -> None:
    for name in ("py", "web"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
    build(tmp_path, scale=0.01, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FOLDERS, "web"])
    assert not (tmp_path / "py" / "mine.txt").exists()
    assert (tmp_path / "web" / "mine.txt").exists()


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise DataError("no")

    monkeypatch.setattr(build_module, "train_tokenizer", fail)
    with pytest.raises(DataError):
        build(tmp_path, scale=0.01)
    assert list(tmp_path.iterdir()) == []


def test_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"sympy is not installed.*pip install 'olmix\[sample\]'") as caught:
        package_folder("sympy")
    assert "\n" not in str(caught.value)


def test_code_keeps_its_meaning_without_comments_and_docstrings() -> None:
    source = (
        '"""Module."""\n# gone\nx = "# kept"  # gone\n\n\n\nclass A:\n    """Only this."""\n\n'
        'def f(a):\n    """Doc\n    string."""\n    y = """# kept\n    too"""\n    return y  # gone\n'
    )
    code = strip_python(source)
    assert "gone" not in code and "Doc" not in code and "Only this" not in code and "Module" not in code
    expected = ast.parse('x = "# kept"\nclass A:\n    pass\ndef f(a):\n    y = """# kept\n    too"""\n    return y\n')
    assert ast.dump(ast.parse(code)) == ast.dump(expected)
    assert strip_python("def f(:\n") == "" == strip_python("x = '''\n")


def test_docstrings_split_into_prose_and_sessions() -> None:
    text = (
        "Return the sum of two numbers, which is a number again.\n\nExamples\n--------\n"
        "The smallest of examples is the sum of two ones:\n\n"
        "    >>> 1 + 1\n    2\n    >>> for i in []:\n    ...     i\n\n"
        "    >>> '\u2500'\n    '\u2500'\n"
    )
    prose, session = separate(text)
    assert prose.splitlines() == [
        "Return the sum of two numbers, which is a number again.",
        "The smallest of examples is the sum of two ones:",
    ]
    assert session == ">>> 1 + 1\n2\n>>> for i in []:\n...     i"
    assert docstrings('add_newdoc("m", "f", """A\nB""")\ndef g():\n    "C"\n') == ["C", "A\nB"]


@given(st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(1, 9), max_size=30), min_size=1))
def test_drawn_evenly(sizes: dict[str, list[int]]) -> None:
    def stream(name: str, lengths: list[int]) -> Iterator[str]:
        return iter([name * length for length in lengths])

    drawn = list(evenly({name: stream(name, lengths) for name, lengths in sizes.items()}))
    given_bytes = dict.fromkeys(sizes, 0)
    left = {name: len(lengths) for name, lengths in sizes.items()}
    assert len(drawn) == sum(left.values())
    for document in drawn:
        # Nobody that still had documents was further behind.
        assert given_bytes[document[0]] == min(given_bytes[name] for name in sizes if left[name])
        given_bytes[document[0]] += len(document)
        left[document[0]] -= 1


@given(st.lists(st.text("ab\u00e9 ", max_size=60), max_size=60).map("\n".join))
def test_pieces_are_whole_lines(text: str) -> None:
    lines = [line.rstrip() for line in text.split("\n")]
    for piece in pieces(text, longest=200, shortest=20):
        assert 20 <= len(piece) <= 200 and piece.isascii()
        wanted = piece.removesuffix("\n").split("\n")
        assert any(lines[i : i + len(wanted)] == wanted for i in range(len(lines)))


def test_collect_goes_on_for_held_out_documents() -> None:
    small, large = collect(exercises(), 10_000), collect(exercises(), 10_000, held_out=50)
    assert small.train == large.train
    assert len(small.held_out) < 50 == len(large.held_out)
    assert large.held_out[: len(small.held_out)] == small.held_out


def test_stories_are_distinct_and_keep_their_hero() -> None:
    told = collect(stories(), 200_000)
    words = {word for text in told.train for word in re.findall(r"[a-z]+", text.lower())}
    assert len(told.train) >= 350 and len(words) >= 400
    assert not any("{" in text for text in told.train)


def test_numbers_in_words() -> None:
    assert [number_words(n) for n in (0, 13, 20, 81)] == ["zero", "thirteen", "twenty", "eighty-one"]
    assert question_and_answer("3 + 4 = 7") == ("3 + 4 =", " 7")
    assert question_and_answer("six plus six is twelve") == ("six plus six is", " twelve")
    with pytest.raises(ValueError, match="not an exercise"):
        question_and_answer("no sum")
