"""The documents name what exists: files, links, commands, settings, checks, alerts. Each shell block has an owner."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import yaml

from cli.commands.verbs import Verbs
from cli.main import isa
from components import SETS
from config.loading import ROOT, keys, variable
from tests.documents import pages, shell_blocks
from tests.imports import PICTURE, draw

PAGES = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in pages()}
TOP = {path.name for path in ROOT.iterdir()} - {"build"}
FENCED = re.compile(r"^```.*?^```", re.M | re.S)
SCRIPT = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\]\((?!https?://)(?P<file>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")
PATH = re.compile(r"[\w.\-]+(/[\w.\-]+)+")
PLACEHOLDERS = re.compile(r"\b(ENGINE|CHART|ENVIRONMENT|COMPONENT|NAME)\b")
# A call where a shell or a piece of code begins a command, up to where that command ends.
CALL = re.compile(r"(?:^|[;&|(]) *(?:\w+=\S+ +)*isa((?: +(?!-vv?\b)[^\s|;&#)`:]+)+)", re.M)
SETTING = re.compile(r"[a-z_]+(\.[a-z_]+)+")
FILES = (".py", ".yaml", ".json", ".md", ".txt", ".lock")
# What stands for a value, or for several options.
SYNTAX = re.compile(r"…|\.\.\.|\[")


def prose(page: str) -> str:
    """A page without its blocks."""
    return FENCED.sub("", PAGES[page])


@cache
def codes(page: str) -> tuple[str, ...]:
    """The pieces of code in the text of a page."""
    return tuple(CODE.findall(prose(page)))


def test_every_shell_block_names_the_test_that_runs_it_or_why_none_does() -> None:
    blocks = [block for page in PAGES for block in shell_blocks(page)]
    assert len(blocks) > 15
    for block in blocks:
        who, _, what = block.mark.partition(" by ")
        if block.mark.startswith("not run: "):
            continue
        assert who == "run", f"{block.page}: no mark before\n{block.script}"
        test = (ROOT / what.split(",")[0]).read_text(encoding="utf-8")
        assert Path(block.page).name in test, f"{what} does not read {block.page}"


def test_every_shell_block_is_one_that_bash_can_parse() -> None:
    for block in (block for page in PAGES for block in shell_blocks(page)):
        done = subprocess.run(
            ["bash", "-n"], input=block.script, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block.page}: {done.stderr}"


def anchors(page: str) -> set[str]:
    """Of a page's headings, as mkdocs and GitHub write them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_every_link_between_the_documents_leads_somewhere() -> None:
    lost = []
    for page in PAGES:
        for link in LINK.finditer(prose(page)):
            folder = (ROOT / page).parent
            target = (folder / link["file"]).resolve() if link["file"] else ROOT / page
            there = target.exists()
            if there and link["anchor"]:
                there = link["anchor"] in anchors(str(target.relative_to(ROOT)))
            lost += [] if there else [f"{page}: {link[0]}"]
    assert lost == []


def test_every_path_that_a_document_names_exists() -> None:
    lost = []
    for page in PAGES:
        for code in codes(page):
            path = code.split("::")[0].rstrip("/")
            ours = PATH.fullmatch(path) and path.split("/")[0] in TOP
            if ours and not PLACEHOLDERS.search(path) and not (ROOT / path).exists():
                lost.append(f"{page}: {code}")
    assert lost == []


def calls(page: str) -> Iterator[list[str]]:
    """The words of each call of `isa` in code."""
    for part in (*codes(page), *SCRIPT.findall(PAGES[page])):
        for call in CALL.findall(part):
            words = call.split()
            if not any(SYNTAX.search(word) for word in words):
                yield words


def unknown(words: list[str]) -> bool:
    """Whether a call names a command or an option that there is not."""
    command: click.Command | None = isa
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        command = command.get_command(click.Context(command), rest.pop(0))
    if isinstance(command, Verbs) and rest and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    if command is None:
        return True
    known = {name for param in command.params for name in param.opts}
    return not {word.split("=")[0] for word in rest if word.startswith("-")} <= known | {"--help"}


def test_every_command_that_a_document_names_exists_with_its_options() -> None:
    found = [(page, words) for page in PAGES for words in calls(page)]
    assert len(found) > 150
    assert [f"{page}: isa {' '.join(words)}" for page, words in found if unknown(words)] == []


def test_every_setting_that_a_document_names_exists() -> None:
    known = set(keys())
    sections = {key.split(".")[0] for key in known if "." in key}
    variables = {variable(key) for key in known}
    lost = []
    for page in PAGES:
        for code in codes(page):
            named = SETTING.fullmatch(code) and code.split(".")[0] in sections
            module = (ROOT / code.replace(".", "/")).with_suffix(".py").exists()
            if named and page != "ARCHITECTURE.md" and code not in known:
                lost += [] if module or code.endswith(FILES) else [f"{page}: {code}"]
            written = re.findall(r"\bISA_[A-Z]+__[A-Z_]+[A-Z]\b", code)
            lost += [f"{page}: {name}" for name in written if name not in variables]
    assert lost == []


def names_of_checks(file: Path) -> set[str]:
    """Names that a module gives its checks; of one that is put together, how it begins."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = getattr(node.func, "attr", "") or getattr(node.func, "id", "")
        first = node.args[0]
        if isinstance(first, ast.JoinedStr):
            first = first.values[0]
        if called in ("check", "note", "Check", "_listed") and isinstance(first, ast.Constant):
            found.add(str(first.value).strip(" '"))
    return found


def test_the_runbook_of_an_engine_explains_every_check_of_its_gate() -> None:
    lost, over = [], []
    for engine in SETS:
        files = [
            file
            for name in ("readiness.py", "connection/proxies.py")
            if (file := ROOT / "components" / engine / name).exists()
        ]
        if not files:
            continue
        page, text = f"docs/runbooks/{engine}.md", "".join(one.read_text("utf-8") for one in files)
        names = {name for file in files for name in names_of_checks(file)}
        explained = first_cells(page, "Gate checks")
        assert len(names) >= 4
        lost += [f"{page}: {name}" for name in names - explained]
        over += [f"{page}: {name}" for name in explained if f'"{name}"' not in text]
    assert (lost, over) == ([], [])


def first_cells(page: str, title: str) -> set[str]:
    """Of the rows of a section's table; names in one cell are apart."""
    section = PAGES[page].partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \|", section.partition("|---")[2], re.M)
    return {name for cell in rows for name in cell.split(", ")}


def test_the_runbook_of_the_platform_explains_findings_messages_and_shared_checks() -> None:
    page = PAGES["docs/runbooks/platform.md"]
    health = ROOT / "operations/health"
    others = [ROOT / "tasks/server/doctor.py", ROOT / "operations/wal/checks.py"]
    doctors = [health / "doctor.py", *health.glob("*_checks.py"), *others]
    findings = {name for file in doctors for name in names_of_checks(file)}
    explained = {
        cell.partition(" *")[0] for cell in first_cells("docs/runbooks/platform.md", "Doctor")
    }
    assert len(findings) > 25
    text = "".join(file.read_text(encoding="utf-8") for file in doctors)
    over = [name for name in explained if f'"{name}' not in text]
    assert (sorted(findings - explained), over) == ([], [])
    gates = [*(ROOT / "operations").rglob("gate.py"), ROOT / "components/pods.py"]
    names = {name for file in gates for name in names_of_checks(file)}
    assert [name for name in sorted(names) if name not in page] == []
    declared = yaml.safe_load((ROOT / "deployments/automations.yaml").read_text())["automations"]
    assert [one["name"] for one in declared if one["name"] not in page] == []


def test_every_alert_names_its_runbook_and_is_explained_there() -> None:
    rules = yaml.safe_load((ROOT / "deployments/monitoring/alerts.yaml").read_text())
    for rule in rules["groups"][0]["rules"]:
        for component in SETS:
            runbook = rule["annotations"]["runbook"]
            page = runbook.replace("{{ $labels.component }}", component)
            assert rule["alert"] in PAGES[page], f"{page} does not explain {rule['alert']}"


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 6 << 10


def test_no_cell_of_the_architecture_is_longer_than_two_lines() -> None:
    rows = [line for line in PAGES["ARCHITECTURE.md"].splitlines() if line.startswith("| ")]
    cells = [cell.strip() for row in rows for cell in row.strip("| ").split(" | ")]
    assert [cell for cell in cells if len(cell) > 240] == []


def test_the_picture_of_the_imports_is_what_the_code_imports() -> None:
    assert PICTURE.read_text(encoding="utf-8") == draw(), "python -m tests.imports draws it"
