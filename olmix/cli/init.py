"""`olmix init`: create a project that runs at once, on the sample corpus or on your own text, or upgrade one."""

from __future__ import annotations

import ast
import difflib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import xxhash
import yaml

from olmix import __version__
from olmix.cores import cores
from olmix.data.byte_pairs import END, train_tokenizer
from olmix.data.holdout import Found, copy_without, find_domain, first_documents
from olmix.data.shards import is_shard
from olmix.data.tokenizer import Tokenizer
from olmix.errors import ConfigError, DataError, PipelineError
from olmix.files import write_bytes, yaml_text
from olmix.project import Project
from olmix.proxy.devices import count_gpus
from olmix.terminal.table import table

TEMPLATE = Path(__file__).parent.parent / "template"
STAGES = Path(__file__).parent.parent / "stages"
IGNORED = ("/build/", "/.olmix/", "/fit/", "/sweep/", "/.venv/", "__pycache__/")
# Merging two branches keeps the lines of both, and a review shows none of them.
ATTRIBUTES = ("/mixtures/sketches.jsonl merge=union -diff",)
# git moves `.dvc` files between versions; this makes the data follow. DVC's own hooks of `dvc install` would also push
# data with every `git push`, and refuse one without a remote.
HOOKS = ("post-checkout", "post-merge")
HOOK = """#!/bin/sh
# From olmix: after git has moved to another version, the data follows (docs/changes.md of olmix).
if [ "$3" = 0 ] || [ -d "$(git rev-parse --git-dir)/rebase-merge" ]; then exit 0; fi
cd {folder} || exit 0
if command -v dvc > /dev/null; then dvc checkout --quiet && exit 0; fi
echo "data and outputs are still of the version before: run dvc checkout, or dvc pull if it finds them missing" >&2
exit 0
"""
ACCEPTED = "# Nothing is accepted yet: every domain is new. `olmix accept` writes this file.\ndomains: {}\n"
# Characters of a held-out document that a task asks for: few windows of a small proxy.
ASKED = 400
# Token ids of a tokeniser for a small proxy on a CPU, and for one of 15 million parameters and more.
SMALL, LARGE = 1024, 32_768
# A swarm should take about so many seconds, at so many tokens a second and core.
SECONDS, SPEED = 120, 30_000
LEAST_TOKENS, MOST_TOKENS = 100_000, 2_000_000
_NOT_NAMES = re.compile(r"[^a-z0-9_]+")

Report = Callable[[str], None]


def init(project: Project, sources: Sequence[Path], report: Report) -> str:
    """Create a project on the folders `sources`, or on the sample corpus; returns a table of its domains.

    Raises ConfigError where a project exists already, and DataError for folders that have no text.
    """
    _require_room(project)
    if sources:
        domains = _named(sources)
        found = {name: _read(name, folder, report) for name, folder in domains.items()}
        _make_root(project)
        text, tracked = _lay_own(project, found, report)
    else:
        _make_root(project)
        text, tracked = _lay_sample(project, report)
    for path, content in managed_files().items():
        write_bytes(project.root / path, content)
    write_bytes(project.runtime, (TEMPLATE / "runtime.yaml").read_bytes())
    write_bytes(project.accepted, ACCEPTED.encode())
    _lay_sketches(project)
    write_bytes(project.root / "external" / "README.md", (TEMPLATE / "external.md").read_bytes())
    _add_lines(project.root / ".gitignore", IGNORED)
    report("git and dvc")
    _version(project, tracked)
    return text


def managed_files() -> dict[str, bytes]:
    """The files of a project that follow olmix's version, by path: `olmix init --upgrade` keeps them current."""
    files = {"dvc.yaml": (TEMPLATE / "pipeline.yaml").read_bytes()}
    for path in sorted(STAGES.glob("[!_]*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text()))
        script = f'"""{doc}"""\n\nfrom olmix.stages.{path.stem} import main\n\nif __name__ == "__main__":\n    main()\n'
        files[f"stages/{path.name}"] = script.encode()
    return files


def _make_root(project: Project) -> None:
    try:
        project.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"no folder can be made here: {error.strerror}", file=project.root) from None


def _require_room(project: Project) -> None:
    if project.root.exists() and not project.root.is_dir():
        raise ConfigError("not a folder", file=project.root, way_out="choose another one")
    for path in (project.pipeline, project.params, project.root / "stages", project.root / "data"):
        if path.exists():
            raise ConfigError(
                "already exists",
                file=path,
                way_out="choose another folder, or run `olmix init --upgrade` to upgrade a project",
            )


def _named(sources: Sequence[Path]) -> dict[str, Path]:
    """Folders of text by the name of the domain: the folders themselves, or those right below them."""
    domains: dict[str, Path] = {}
    for source in sources:
        if not source.is_dir():
            raise DataError("a file; give its folder" if source.exists() else "no such folder", file=source)
        below = sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
        # A readme beside folders of text is no shard.
        files = [path for path in source.iterdir() if path.is_file() and not path.name.startswith((".", "_"))]
        files = [path for path in files if not below or is_shard(path.name)]
        if not below and not files:
            raise DataError("an empty folder", file=source, way_out="give a folder of text")
        for folder in below if below and not files else [source]:
            name = _NOT_NAMES.sub("-", folder.resolve().name.lower()).strip("-_")[:64]
            if not name:
                raise DataError("no letter or digit to name a domain by", file=folder, way_out="rename the folder")
            if name in domains and domains[name].resolve() == folder.resolve():
                raise DataError("given twice", file=folder, way_out="give it once")
            if name == "tasks" or name in domains:
                raise DataError(f"the name {name} is already taken", file=folder, way_out="rename the folder")
            domains[name] = folder
    if len(domains) < 2:
        raise DataError("a mixture needs at least two domains", way_out="give more folders: --from A --from B")
    return dict(sorted(domains.items()))


def _read(name: str, folder: Path, report: Report) -> Found:
    report(f"read {name}")
    return find_domain(folder)


def _lay_own(project: Project, found: Mapping[str, Found], report: Report) -> tuple[str, list[str]]:
    """Copy the domains without what is held out, write tasks, a tokeniser and params.yaml; what to print, and the
    folders to put under DVC."""
    data = project.root / "data"
    # A document may stand in two domains, and a task must be in none.
    held_out_anywhere = frozenset[int]().union(*(domain.held_out for domain in found.values()))
    for name, domain in found.items():
        report(f"copy {name}")
        held_out = copy_without(domain, data / name, held_out_anywhere)
        items = [{"prompt": "", "continuation": _piece(text)} for text in held_out]
        write_bytes(data / "tasks" / f"{name}-held-out.jsonl", b"".join(orjson.dumps(item) + b"\n" for item in items))
    gpus = count_gpus()
    report("train the tokeniser")
    path = project.root / "tokenizers" / "tokenizer.json"
    write_bytes(path, train_tokenizer(_texts(data, found), LARGE if gpus else SMALL).encode())
    tokens = _count_tokens(data, found, Tokenizer(path, END))
    write_bytes(project.params, _params_of(found, tokens, gpus).encode())
    rows = [
        [
            name,
            domain.format,
            f"{domain.documents:,}",
            f"{domain.bytes:,}",
            f"~{tokens[name]:,}",
            f"{len(domain.held_out)}",
        ]
        for name, domain in found.items()
    ]
    header = ["domain", "format", "documents", "bytes", "tokens", "held out"]
    return table(header, rows, left=2), [f"data/{name}" for name in (*found, "tasks")]


def _piece(text: str) -> str:
    """The beginning of a text, up to the end of a word."""
    text = text.strip()
    return text if len(text) <= ASKED else text[:ASKED].rsplit(maxsplit=1)[0]


def _texts(data: Path, found: Mapping[str, Found], most: int = 50_000_000) -> Iterator[str]:
    """Text of every domain, an equal part of `most` bytes each."""
    for name, domain in found.items():
        for document in first_documents(data / name, domain.reading, most // len(found)):
            yield document.decode()


def _count_tokens(data: Path, found: Mapping[str, Found], tokenizer: Tokenizer) -> dict[str, int]:
    """About how many tokens each domain has, from the first of its text."""
    counts = {}
    for name, domain in found.items():
        texts = [document.decode() for document in first_documents(data / name, domain.reading, 500_000)]
        tokens, size = sum(len(ids) + 1 for ids in tokenizer.encode(texts)), sum(len(text.encode()) for text in texts)
        counts[name] = max(1, round(domain.bytes * tokens / max(size, 1)))
    return counts


def _params_of(found: Mapping[str, Found], tokens: Mapping[str, int], gpus: int) -> str:
    """params.yaml for domains: the template's, with their names, and sizes for this machine."""
    runs = 3 * (len(found) + 1)
    room = SECONDS * SPEED * cores() // runs
    budget = min(MOST_TOKENS, max(LEAST_TOKENS, min(room, sum(tokens.values())))) // 10_000 * 10_000
    domains = {
        name: {"path": f"data/{name}", **({"text": domain.reading.text} if domain.reading.text != "text" else {})}
        for name, domain in found.items()
    }
    target = _rounded(sum(tokens.values()))
    blocks = {
        "domains": "# One entry per domain: its folder, and how to read it (docs/data.md of olmix).\ndomains:\n"
        + "".join(f"  {yaml_text(name)}: {_flow(entry)}\n" for name, entry in domains.items()),
        "descriptions": "# Cosmetic: what people call the domains. Only tables show it.\ndescriptions: {}\n",
        "tokenizer": f"# Learned from the domains; `olmix tokenizer --vocab N` learns another.\ntokenizer:\n"
        f"  path: tokenizers/tokenizer.json\n  end_of_document: {END}\n",
        "tasks": "# EDIT FIRST: what the mixture should be good at. These tasks are held-out text of the domains;\n"
        '# tasks of your own are better: data/tasks/<task>.jsonl, lines of {"prompt": ..., "continuation": ...}.\n'
        "tasks:\n  path: data/tasks\n  families:\n    held-out: ["
        + ", ".join(f"{name}-held-out" for name in found)
        + "]\n",
        "objective": "# The weighted mean of the tasks' bits per byte; a weight is for a task, or each of a family.\n"
        "objective:\n  weights: {held-out: 1}\n",
        "target": "# EDIT FIRST: the tokens of the target training run, and how often it may repeat a domain.\n"
        f"# {target} is about what the domains contain.\ntarget:\n  tokens: {target}\n  repetition: 4\n",
    }
    text = (TEMPLATE / "params.yaml").read_text()
    for key, block in blocks.items():
        text = _with_block(text, key, block)
    size, sequence, proxy_tokens = ("15m", 1024, "5x") if gpus else ("100k", 64, f"{budget // 1000}k")
    for key, value in (("size", size), ("sequence_length", sequence), ("tokens", proxy_tokens)):
        text = re.sub(rf"(\nproxy:\n(?:  .*\n)*?  {key}: ).*", rf"\g<1>{value}", text, count=1)
    why = "it has a GPU" if gpus else f"a swarm takes minutes on {cores()} cores"
    note = (
        f"# Sized for this machine: {why}.\n"
        "# For real work, use 15m or more, and tokens: 5x (5 times 20 per parameter) or auto.\n"
    )
    return re.sub(r"# The sample's size; .*\n", note, text)


def _with_block(text: str, key: str, block: str) -> str:
    """`text` of params.yaml with another block for a top-level `key`, its comments included."""
    pattern = re.compile(rf"(?:^#.*\n)*^{key}:.*\n(?:^[ #].*\n)*", re.MULTILINE)
    if not pattern.search(text):
        raise PipelineError(f"no block {key!r}", file=TEMPLATE / "params.yaml")
    return pattern.sub(lambda _: block, text, count=1)


def _flow(entry: Mapping[str, str]) -> str:
    return yaml.safe_dump(dict(entry), default_flow_style=True, sort_keys=False, width=1000).strip()


def _rounded(tokens: int) -> str:
    """Two digits of a count, as a person writes it."""
    for size, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if tokens >= size:
            return f"{float(f'{tokens / size:.2g}'):g}{letter}"
    return str(tokens)


def _lay_sample(project: Project, report: Report) -> tuple[str, list[str]]:
    from olmix.sample_corpus.build import FOLDERS, build

    report("build the sample corpus")
    text = build(project.root / "data")
    write_bytes(project.params, (TEMPLATE / "params.yaml").read_bytes())
    return text, [f"data/{name}" for name in FOLDERS]


def _add_lines(path: Path, wanted: Sequence[str]) -> bool:
    """Add the lines that a file lacks; whether there were any."""
    lines = path.read_text().splitlines() if path.exists() else []
    missing = [line for line in wanted if line not in lines]
    if missing:
        write_bytes(path, ("\n".join([*lines, *missing]) + "\n").encode())
    return bool(missing)


def _lay_sketches(project: Project) -> list[str]:
    """An empty file of sketches, and how git treats it, where they are missing; what was written, by path."""
    attributes = project.root / ".gitattributes"
    laid = [attributes.name] if _add_lines(attributes, ATTRIBUTES) else []
    if not project.sketches.exists():
        write_bytes(project.sketches, b"")
        laid.append(project.sketches.relative_to(project.root).as_posix())
    return laid


def _version(project: Project, tracked: Sequence[str]) -> None:
    """Put the project under git and DVC, and `tracked` under DVC."""
    inside = _rev_parse(project, "--show-toplevel")
    if not inside:
        _run(project, "git", "init", "-q")
    subdirectory = bool(inside) and Path(inside[0]) != project.root.resolve()
    if not (project.root / ".dvc").is_dir():
        _run(project, sys.executable, "-m", "dvc", "init", "-q", *(["--subdir"] if subdirectory else []))
    _run(project, sys.executable, "-m", "dvc", "add", "-q", *tracked)
    _lay_hooks(project)
    _run(project, "git", "add", ".")


def _lay_hooks(project: Project) -> list[str]:
    """The git hooks that are missing, if there is a repository; what was written, by path. Hooks of others stay."""
    places = _rev_parse(project, "--show-prefix", "--git-path", "hooks")
    if not places:
        return []
    (prefix, hooks), laid = places[:2], []
    for name in HOOKS:
        path = project.root / hooks / name
        if not path.exists():
            write_bytes(path, HOOK.format(folder=shlex.quote(prefix or ".")).encode())
            path.chmod(0o755)
            laid.append(f"git's hook {name}")
    return laid


def _rev_parse(project: Project, *asked: str) -> list[str]:
    """What `git rev-parse` answers, line by line; nothing without git or a repository."""
    words = ["git", "rev-parse", *asked]
    try:
        ran = subprocess.run(words, cwd=project.root, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        return []
    return ran.stdout.split("\n") if ran.returncode == 0 else []


def _run(project: Project, *words: str) -> None:
    try:
        ran = subprocess.run(words, cwd=project.root, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        raise PipelineError(f"no program {words[0]}", way_out="install it") from None
    if ran.returncode:
        lines = (ran.stderr or ran.stdout).strip().splitlines() or ["no message"]
        raise PipelineError(f"{' '.join(words[-3:])} failed: {lines[-1]}")


@dataclass(frozen=True)
class Upgrade:
    """What a newer olmix changes in a project: files that were written, and files that are left because they were
    edited, by path with their differences."""

    written: Mapping[str, str]
    edited: Mapping[str, str]

    def to_text(self) -> str:
        """The differences, and a closing line."""
        parts = [difference for difference in (*self.written.values(), *self.edited.values()) if difference]
        lines = [f"written: {', '.join(self.written)}"] if self.written else []
        if self.edited:
            lines.append(
                f"left alone because they were edited: {', '.join(self.edited)}; apply the changes above by hand, or "
                "overwrite them with --force"
            )
        return "\n".join([*parts, *lines]) or "up to date: nothing to write"


def upgrade(project: Project, force: bool) -> Upgrade:
    """Bring `dvc.yaml` and `stages/` to this version: what olmix wrote is replaced, what was edited only by `force`.

    Raises ConfigError where there is no project.
    """
    if not project.params.exists():
        raise ConfigError(
            "no such file", file=project.params, way_out="change to a project, or create one with `olmix init DIR`"
        )
    known: dict[str, list[str]] = orjson.loads((TEMPLATE / "known.json").read_bytes())
    written, edited = dict.fromkeys([*_lay_sketches(project), *_lay_hooks(project)], ""), {}
    for name, content in managed_files().items():
        path = project.root / name
        before = path.read_bytes() if path.exists() else None
        if before == content:
            continue
        difference = "".join(
            difflib.unified_diff(
                (before or b"").decode(errors="replace").splitlines(keepends=True),
                content.decode().splitlines(keepends=True),
                f"{name} (yours)",
                f"{name} (olmix {__version__})",
            )
        )
        if before is None or force or file_digest(before) in known.get(name, []):
            write_bytes(path, content)
            written[name] = difference
        else:
            edited[name] = difference
    return Upgrade(written, edited)


def file_digest(content: bytes) -> str:
    """What `known.json` lists the versions of a managed file by."""
    return xxhash.xxh3_64_hexdigest(content)
