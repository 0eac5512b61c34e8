"""What a fresh machine is told to install and to type agrees with what the code needs and the Makefile does."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from uram_lib.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
README = (ROOT / "README.md").read_text()


def declared(*extras: str) -> list[Requirement]:
    groups = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return [Requirement(text) for group in groups for text in group]


def locked() -> dict[str, Requirement]:
    lines = [line for line in LOCK.splitlines() if line.strip() and not line.startswith("#")]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def pin(requirement: Requirement) -> str:
    (exact,) = requirement.specifier
    assert exact.operator == "==", f"{requirement} is not an exact pin"
    return exact.version


def test_lock_pins_every_declared_package_within_its_range():
    pins = locked()
    for requirement in declared("book", "test", "cluster"):
        assert pin(pins[canonicalize_name(requirement.name)]) in requirement.specifier, requirement


def test_lock_is_complete_and_consistent_for_this_machine():
    """Every dependency of every locked package is locked too, within the range that the package asks for."""
    pins = {name: r for name, r in locked().items() if r.marker is None or r.marker.evaluate()}
    for name in pins:
        for text in importlib.metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                found = pins.get(canonicalize_name(needed.name))
                assert found is not None, f"{name} needs {needed.name}, which is not locked"
                assert needed.specifier.contains(pin(found), prereleases=True), f"{name} needs {needed}"


def test_installed_versions_are_the_locked_ones():
    for name, requirement in locked().items():
        if requirement.marker is None or requirement.marker.evaluate():
            assert importlib.metadata.version(name) == pin(requirement), name


def test_lock_names_no_address_and_only_exact_pins():
    assert not re.search(r"://|@|^\s*-", LOCK, re.MULTILINE)
    for requirement in locked().values():
        pin(requirement)


def test_cuda_wheels_are_asked_for_on_linux_alone():
    for name, requirement in locked().items():
        if name.startswith(("nvidia-", "cuda-")) or name == "triton":
            assert not requirement.marker.evaluate({"sys_platform": "darwin", "platform_machine": "arm64"}), name


def test_conda_environment_installs_the_lock_and_this_project():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = next(d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python"))
    assert Requirement(PROJECT["name"] + PROJECT["requires-python"]).specifier.contains(python.split("=")[1] + ".99")
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-r requirements.lock", "-e ."]


@pytest.mark.parametrize(
    ("folder", "extras"), [("uram_lib", ("book", "cluster")), ("tests", ("book", "test", "cluster"))]
)
def test_every_import_is_declared(folder, extras):
    provided = importlib.metadata.packages_distributions()
    allowed = {canonicalize_name(r.name) for r in declared(*extras)}
    ours = {"uram_lib", "tests", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    for path in (ROOT / folder).rglob("*.py"):
        names = []
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names += [node.module]
        for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names - ours:
            assert {canonicalize_name(d) for d in provided.get(name, [name])} & allowed, f"{path.name}: {name}"


def test_the_library_alone_needs_no_book_tools():
    """Importing what trains and tabulates works with [project.dependencies] only."""
    blocked = "papermill nbconvert nbformat jupyter_book pytest hypothesis".split()
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "import uram_lib.cli, uram_lib.sweep, uram_lib.tables, uram_lib.training, uram_lib.pages"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)


def test_a_readers_runs_and_data_are_ignored_by_git():
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/results/local/", "/data/", "/_build/", "/book/_generated/", ".venv/"} <= set(ignored)


def targets() -> list[str]:
    return re.findall(r"^([a-z0-9-]+):(?!=)", MAKEFILE, re.MULTILINE)


def test_make_help_lists_every_target_with_a_line():
    for command in (["make", "help"], ["make"]):
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout
        for target in targets():
            assert re.search(rf"^  {target} +\S.{{10,}}", said, re.MULTILINE), f"make help says nothing of {target}"


def test_every_target_that_is_no_file_has_a_rule():
    """Make says that there is nothing to be done for a phony target without a rule, and calls that a success."""
    (phony,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert sorted(phony.split()) == sorted(targets())


def test_commands_in_readme_and_book_are_real_targets():
    pages = [README, *((ROOT / "book" / f"{n}.md").read_text() for n in ("intro", "claims", "provenance", "extend"))]
    named = {target for page in pages for target in re.findall(r"\bmake ([a-z][a-z0-9-]+)", page)}
    assert {"reproduce-table2", "test"} <= named
    # Prose says "make one row again" too: what stands in code is meant.
    named = {t for page in pages for t in re.findall(r"(?:`|^)make ([a-z][a-z0-9-]+)", page, re.MULTILINE)}
    assert named <= set(targets())


@pytest.mark.parametrize(
    "target", ["reproduce-table1", "reproduce-table2", "reproduce-table4", "test", "book", "tables"]
)
def test_a_target_builds_the_environment_first(target):
    """In a clone without .venv the first thing that make does is to make one."""
    plan = subprocess.run(
        ["make", "-n", target, "INSTALLED=.venv/.not-there"], cwd=ROOT, capture_output=True, text=True, timeout=30
    ).stdout
    assert "-m venv" in plan and plan.index("-m venv") < plan.index("requirements.lock") < plan.rindex(".venv/bin/")


def test_setup_says_in_one_line_that_python_is_missing(tmp_path):
    """With no Python on the path. `make setup` copies nothing and leaves nothing behind."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "make", "getconf", "touch", "sed", "awk"):
        found = subprocess.run(["which", tool], capture_output=True, text=True, check=True).stdout.strip()
        (tools / tool).symlink_to(found)
    ran = subprocess.run(
        ["make", "setup"], cwd=tmp_path, env={"PATH": str(tools)}, capture_output=True, text=True, timeout=30
    )
    said = [line for line in (ran.stdout + ran.stderr).splitlines() if not line.startswith("make:")]
    assert ran.returncode != 0 and len(said) == 1 and "no Python 3.11.5 or newer" in said[0]
    assert not (tmp_path / ".venv").exists()


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert "://" in target or (ROOT / target).exists(), target


def test_readme_table_is_in_step_with_the_results():
    from uram_lib.pages import renewed_readme

    assert renewed_readme(README) == README, "run make tables"


def test_licence_and_citation_agree_with_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["license"], citation["version"]) == (PROJECT["license"], PROJECT["version"])
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
