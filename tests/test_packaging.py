"""What a fresh machine is told to install and to type agrees with what the code needs and the Makefile does."""

import ast
import importlib.metadata
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from conftest import python
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import uram_lib
from uram_lib import cli, experiments
from uram_lib.common import ROOT


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


PROJECT = tomllib.loads(text_of("pyproject.toml"))["project"]
EXTRAS = tuple(PROJECT["optional-dependencies"])
LOCK, MAKEFILE, README = text_of("requirements.lock"), text_of("Makefile"), text_of("README.md")
CHAPTERS = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "book" / "chapters").rglob("*.md"))}


def declared(*extras: str) -> list[Requirement]:
    groups = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return [Requirement(text) for group in groups for text in group]


def locked() -> dict[str, Requirement]:
    lines = [line for line in LOCK.splitlines() if line.strip() and not line.startswith("#")]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def here(requirement: Requirement) -> bool:
    """Whether it is wanted on this machine."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def test_lock_pins_every_package_within_its_range_and_is_installed_on_this_machine():
    """Every dependency of every locked package is locked too, within the range that the package asks for."""
    assert not re.search(r"://|@|^\s*-", LOCK, re.MULTILINE)  # no address
    exact = {name: re.fullmatch(r"==([^,*]+)", str(requirement.specifier))[1] for name, requirement in locked().items()}
    for requirement in declared(*EXTRAS):
        assert exact[canonicalize_name(requirement.name)] in requirement.specifier, requirement
    pins = {name: exact[name] for name, requirement in locked().items() if here(requirement)}
    for name, version in pins.items():
        assert importlib.metadata.version(name) == version, name
        for needed in filter(here, map(Requirement, importlib.metadata.requires(name) or [])):
            found = pins.get(canonicalize_name(needed.name))
            assert found is not None, f"{name} needs {needed.name}, which is not locked"
            assert needed.specifier.contains(found, prereleases=True), f"{name} needs {needed}"


def test_cuda_wheels_are_asked_for_on_linux_alone():
    for name, requirement in locked().items():
        if name.startswith(("nvidia-", "cuda-")) or name == "triton":
            assert not requirement.marker.evaluate({"sys_platform": "darwin", "platform_machine": "arm64"}), name


def test_conda_environment_takes_a_small_pytorch_and_this_project_with_all_its_extras():
    environment = yaml.safe_load(text_of("environment.yml"))
    conda = {d.partition("=")[0].partition(">")[0]: d for d in environment["dependencies"] if isinstance(d, str)}
    ranges = {canonicalize_name(r.name): r.specifier for r in declared()}
    assert Requirement("python" + PROJECT["requires-python"]).specifier.contains(conda["python"].split("=")[1] + ".99")
    # Both are there before pip looks, so that it does not fetch the wheels that bring CUDA.
    assert Requirement(conda["pytorch-cpu"]).specifier == ranges["torch"]
    assert Requirement(conda["torchvision"]).specifier == ranges["torchvision"]
    (pip,) = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip.startswith("-e .[") and sorted(pip[5:-1].split(",")) == sorted(EXTRAS)


@pytest.mark.parametrize(
    ("folder", "extras"), [("uram_lib", ("cluster",)), ("book/uram_book", ("book",)), ("tests", EXTRAS)]
)
def test_every_import_is_declared(folder, extras):
    provided = importlib.metadata.packages_distributions()
    allowed = {canonicalize_name(r.name) for r in declared(*extras)}
    ours = {"uram_lib", "tests", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    ours |= {"uram_book"} if folder != "uram_lib" else set()  # the library never imports the book
    for path in (ROOT / folder).rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0]
        for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names - ours:
            assert {canonicalize_name(d) for d in provided.get(name, [name])} & allowed, f"{path.name}: {name}"


def test_the_library_alone_needs_no_book_tools():
    """All of it is imported with [project.dependencies] only."""
    blocked = "uram_book papermill nbconvert nbformat jupyter_book jinja2 IPython pytest hypothesis distributed".split()
    script = (
        "import pkgutil, sys, importlib, torch, torchvision, uram_lib\n"  # torch itself looks for jinja2
        f"sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "for found in pkgutil.walk_packages(uram_lib.__path__, 'uram_lib.'): importlib.import_module(found.name)"
    )
    assert python("-c", script).returncode == 0


def make(*words: str, cwd: Path = ROOT, **options) -> subprocess.CompletedProcess:
    return subprocess.run(["make", *words], cwd=cwd, capture_output=True, text=True, timeout=30, **options)


TARGETS = re.findall(r"^([a-z0-9-]+):(?!=)", MAKEFILE, re.MULTILINE)


def test_every_target_has_a_rule_and_a_line_of_help():
    """Make says that there is nothing to be done for a phony target without a rule, and calls that a success."""
    (phony,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert sorted(phony.split()) == sorted(TARGETS)
    said = make().stdout
    assert said == make("help").stdout
    for target in TARGETS:
        assert re.search(rf"^  {target} +\S.{{10,}}", said, re.MULTILINE), f"make help says nothing of {target}"


# What stands in code is meant: prose says "make one row again", too.
COMMANDS = {
    (name, command.strip())
    for name, page in {"README.md": README, **CHAPTERS}.items()
    for command in re.findall(r"(?:`|^)((?:make|(?:\.venv/bin/)?uram) [^`#\n]*)", page, re.MULTILINE)
    if not re.search(r"[{}…]|[A-Z]{3,}@", command)  # filled in by the template, or by the reader
    and name != "extend.md"  # adds a row first (test_extend)
}


def test_every_make_command_of_readme_and_book_is_a_real_one():
    named = {word for _, line in COMMANDS if line.startswith("make ") for word in line.split()[1:] if "=" not in word}
    assert {"reproduce-table2", "test", "lab"} <= named <= {*TARGETS, "TARGET"}


@pytest.mark.parametrize(("page", "command"), sorted(pair for pair in COMMANDS if not pair[1].startswith("make ")))
def test_every_uram_command_of_readme_and_book_is_a_real_one(page, command):
    words = shlex.split(command)[1:]
    if words == ["--help"] or words[1:] == ["--help"]:
        return
    options = cli.parser().parse_args(words)
    if options.command == "run":
        settings = cli.settings_of(options.set)
        assert experiments.experiments(
            options.table, options.preset, options.rows and options.rows[0].split(","), settings=settings
        )
    if options.command == "read":
        assert options.model.split("/")[1] in experiments.ROWS[options.model.split("/")[0]]


@pytest.fixture
def fresh(tmp_path) -> Path:
    """What make needs, in a folder without .venv."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_a_target_builds_the_environment_first(fresh):
    """In a clone without .venv the first thing that make does is to make one, and it says what that takes."""
    for target in ("reproduce-table1", "reproduce-table2", "reproduce-table4", "test", "book", "tables", "lab"):
        plan = make("-n", target, cwd=fresh).stdout
        places = [plan.index(part) for part in ("-m venv", "7 GB", "environment.yml", "pip install")]
        assert places == sorted(places) and places[-1] < plan.rindex(".venv/bin/"), target


@pytest.mark.parametrize("words", [["preset=paper"], ["reproduce-table2", "SEED=3"], ["help", "rows=ram-6"]])
def test_a_variable_that_would_be_ignored_is_refused(words, fresh):
    ran = make(*words, cwd=fresh)
    assert ran.returncode != 0 and not ran.stdout
    assert ran.stderr.count("\n") == 1 and f"unknown variable {words[-1].split('=')[0]}; one of: PRESET," in ran.stderr


def test_known_variables_reach_the_command(fresh):
    words = "PRESET=paper SEEDS=4-9 ROWS=ram-6,ours-6 DEVICE=cpu JOBS=3 DATASET=digits SCHEDULER=tcp://x:1".split()
    plan = make("-n", "reproduce-table2", *words, cwd=fresh).stdout
    for word in words:
        name, value = word.split("=")
        assert f"--{name.lower()} '{value}'" in plan


def test_setup_says_in_one_line_that_python_is_missing(fresh):
    """With no Python on the path. Nothing is left behind."""
    tools = fresh / "bin"
    tools.mkdir()
    for tool in ("sh", "make", "getconf", "touch", "sed", "awk"):
        (tools / tool).symlink_to(shutil.which(tool))
    ran = make("setup", cwd=fresh, env={"PATH": str(tools)})
    said = [line for line in (ran.stdout + ran.stderr).splitlines() if not line.startswith("make:")]
    assert ran.returncode != 0 and len(said) == 1 and "no Python 3.11.5 or newer" in said[0]
    assert not (fresh / ".venv").exists()


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert "://" in target or (ROOT / target).exists(), target


def test_the_python_of_the_readme_runs():
    """But for its training, which is for scripts; its rows must be there."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(code, {"images": torch.zeros(2, 1, 100, 100), "__name__": "readme"})
    for table, row in re.findall(r'run\("(\w+)", rows=\["([\w-]+)"\]\)', code):
        assert row in experiments.ROWS[table]


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.name)
def test_workflows_call_what_a_reader_calls(path):
    """Their syntax is checked with actionlint by hand; it is no Python package."""
    flow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert flow["permissions"] == {"contents": "read"} and "push" in flow[True]  # YAML 1.1 reads `on` as true
    steps = [step for job in flow["jobs"].values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step and not step["run"].startswith("git ")]
    assert commands == {"tests.yml": ["bash .ci/run"], "book.yml": ["make book"]}[path.name]
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) for step in steps if "uses" in step)


def test_licence_version_and_citation_agree_with_the_project():
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert (citation["license"], citation["version"]) == (PROJECT["license"], PROJECT["version"])
    assert uram_lib.__version__ == PROJECT["version"]
    assert text_of("LICENSE").startswith("MIT License")
