"""The suite against known bugs: `make mutants`.

Each mutant is the library with one bug from public code put into it: in a temporary copy, an expression or a statement
of one function is replaced in the syntax tree, so how the source is laid out does not matter. The tests of that part
must then fail; a mutant that they let pass has *survived*, and the exit status says so. The unchanged copy comes first:
only where its tests pass does their failing mean anything. Writes `results/mutants.json`.
"""

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from uram_lib import UramError
from uram_lib.cli import exit_status
from uram_lib.common import RESULTS, ROOT, relative, write_atomically
from uram_lib.runs.machine import git_state

RESULT = RESULTS / "mutants.json"
OBJECTIVES, RAM, GLIMPSE, CLUTTER, TOPDOWN = (
    (f"tests/test_{name}.py",) for name in ("objectives", "ram", "glimpse", "clutter", "topdown")
)


@dataclass(frozen=True)
class Mutant:
    """One bug. file: where, under `uram_lib`; function: in which, as in `RAM.forward`, or the whole file where empty;
    swaps: what is replaced by what, each an expression or a statement that is there exactly once; tests: the files of
    tests that must notice."""

    bug: str  # its number in the catalogue
    change: str  # what goes wrong, in words
    file: str
    function: str
    swaps: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.bug} in {self.file}: {self.change}"


MUTANTS = (
    Mutant("T1", "the log-probability is that of a sample that still depends on the mean", "models/ram.py",
           "RAM.forward", (("(policy[0], mean, sample)", "(policy[0], mean, drawn)"),), RAM),
    Mutant("T2", "the mean is detached as well as the sample", "models/ram.py",
           "RAM.log_prob", (("Normal(means, sigma, validate_args=False)", "Normal(means.detach(), sigma)"),), RAM),
    Mutant("T3", "the log-probability is that of the clamped location", "models/ram.py",
           "RAM.forward", (("(policy[0], mean, sample)", "(policy[0], mean, sample.clamp(-1, 1))"),), RAM),
    Mutant("T4", "the location enters the glimpse network with its gradient", "models/ram.py",
           "RAM.forward", (("drawn if through_locations else sample", "drawn"),), RAM),
    Mutant("T4", "the sensor passes a gradient to the location", "glimpse.py",
           "GlimpseSensor.__call__", (("location if through_location else location.detach()", "location"),), GLIMPSE),
    Mutant("T5", "the baseline keeps its gradient in the advantage", "objectives.py",
           "policy_objective", (("baselines.detach()", "baselines"), ("advantage.detach()", "advantage")), OBJECTIVES),
    Mutant("T5", "rewards (B,) are spread over actions instead of images", "objectives.py",
           "policy_objective",
           (("rewards[:, None]", "rewards.repeat(log_probs.shape[1])[: log_probs.shape[1]]"),), OBJECTIVES),
    Mutant("T6", "log-probabilities and rewards are averaged over rollouts, each alone", "objectives.py",
           "policy_objective",
           (("(log_probs * advantage.detach()).sum(1)",
             "(log_probs.mean(0) * advantage.detach().mean(0)).sum()[None]"),),
           OBJECTIVES),
    Mutant("T7", "half of an odd size is rounded down", "glimpse.py",
           "GlimpseSensor.__call__", (("self.size / 2 * side", "self.size // 2 * side"),), GLIMPSE),
    Mutant("T8", "coarser patches share a corner with the finest, not its centre", "glimpse.py",
           "GlimpseSensor.__call__", (("self.size / 2 * side", "self.size / 2"),), GLIMPSE),
    Mutant("T9", "the fourth scale reads boxes 6 px apart, not 8", "glimpse.py",
           "GlimpseSensor.__call__", (("side = 2**k", "side = 2 * k or 1"),), GLIMPSE),
    Mutant("T10", "images are normalised first and padded with zeros afterwards", "models/ram.py",
           "RAM.forward",
           (("self.sensor.pyramid(images)", "self.sensor.pyramid((images - self.patch_mean[0]) / self.patch_std[0])"),
            ("(patch - patch_mean) / patch_std", "patch")),
           GLIMPSE),
    Mutant("T10", "what lies outside is not black but like the edge", "glimpse.py",
           "interpolate", (("'zeros'", "'border'"),), GLIMPSE),
    Mutant("T11", "x and y are swapped", "glimpse.py",
           "interpolate",
           (("(x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size))",
             "(y[:, :, None].expand(-1, -1, size), x[:, None, :].expand(-1, size, -1))"),),
           GLIMPSE),
    Mutant("T12", "the digit never reaches its last offset", "data/clutter.py",
           "compose",
           (("draw(side - frame + 1 - 2 * least, (batch, 2))", "draw(side - frame - 2 * least, (batch, 2))"),),
           CLUTTER),
    Mutant("T14", "one log-probability too many, of a location that is not looked at", "models/ram.py",
           "RAM.forward",
           (("self.log_prob(samples, means, sigma)",
             "self.log_prob(*(torch.cat((v, v[:, -1:]), 1) for v in (samples, means)), sigma)"),),
           RAM),
    Mutant("T15", "the core's arguments are swapped, which equal sizes hide", "models/ram.py",
           "RAM.__init__", (("CORES[config.core](GLIMPSE, hidden)", "CORES[config.core](hidden, GLIMPSE)"),), RAM),
    Mutant("T16", "`squeeze()` also drops a batch of one", "models/ram.py",
           "RAM.forward",
           (("self.baseline_network(seen_by_policy.detach())[..., 0]",
             "self.baseline_network(seen_by_policy.detach()).squeeze()"),),
           ("tests/test_models.py",)),
    Mutant("T17", "clutter erases the digit", "data/clutter.py",
           "compose",
           (("canvas.scatter_add_(1, pixels(place, PIECE, side).flatten(1), clutter.flatten(1).to(torch.int16))",
             "canvas.scatter_(1, pixels(place, PIECE, side).flatten(1), clutter.flatten(1).to(torch.int16))"),),
           CLUTTER),
    Mutant("T18", "patches are shifted by up to half a pixel", "glimpse.py",
           "interpolate", (("False", "True"),), GLIMPSE),
    Mutant("A3", "the frozen network is not frozen", "models/topdown.py",
           "TopDown.forward", (("self.target(image)", "self.online(image)"),), TOPDOWN),
    Mutant("D8", "J enters the loss with the sign that is printed in Eq. 14", "objectives.py",
           "hybrid_loss",
           (("loss - config.beta2 * objective + regression", "loss + config.beta2 * objective + regression"),),
           OBJECTIVES),
)  # fmt: skip


def laid_out(text: str) -> str:
    """An expression or a statement as `ast.unparse` writes it, however it was laid out."""
    return ast.unparse(*ast.parse(text).body)


def mutated(text: str, mutant: Mutant) -> str:
    """`text`, the source that the mutant changes, with its bug. Raises UramError unless each swap fits once."""
    part = tree = ast.parse(text)
    for name in filter(None, mutant.function.split(".")):
        part = next((node for node in part.body if getattr(node, "name", None) == name), None)
        if part is None:
            raise UramError(f"{mutant.name}: there is no {mutant.function} in uram_lib/{mutant.file}")
    source = ast.unparse(part)
    for old, new in mutant.swaps:
        if (count := source.count(laid_out(old))) != 1:
            place = f"uram_lib/{mutant.file}{mutant.function and f', {mutant.function}'}"
            raise UramError(f"{mutant.name}: {old!r} is found {count} times in {place}, not once")
        source = source.replace(laid_out(old), laid_out(new))
    made = ast.parse(source)
    part.body = made.body[0].body if mutant.function else made.body
    return ast.unparse(tree) + "\n"


def failures(tests: tuple[str, ...], mutant: Mutant | None = None) -> tuple[list[str], int]:
    """Run files of tests against a copy of the library, with a bug or without.

    Returns the names of the tests that failed, without parameters, and how many ran. Raises UramError where pytest did
    not come to an end of them, as with a copy that cannot be imported: that would be no bug that anybody ships.
    """
    with tempfile.TemporaryDirectory(prefix="uram-mutant-") as folder:
        copy, report = Path(folder, "project"), Path(folder, "report.xml")
        for name in ("uram_lib", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        if mutant:
            path = copy / "uram_lib" / mutant.file
            path.write_text(mutated(path.read_text(encoding="utf-8"), mutant), encoding="utf-8")
        environment = os.environ | {"PYTHONPATH": str(copy)}
        environment.pop("URAM_DATA", None)  # nothing here needs it, so the outcome is the same on every machine
        command = [sys.executable, "-m", "pytest", *tests, "--tb=no", "-p", "no:cacheprovider", "-p", "no:nbval"]
        command += ["--hypothesis-profile=first-failure", f"--junitxml={report}"]
        ran = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
        if ran.returncode not in (0, 1):
            said = (ran.stdout + ran.stderr).strip().splitlines() or ["nothing was said"]
            raise UramError(f"{mutant.name if mutant else 'the library as it is'}: pytest did not run: {said[-1]}")
        cases = list(xml.parse(report).iter("testcase"))
    failed = [case.get("name") for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return list(dict.fromkeys(name.split("[")[0] for name in failed)), len(cases)


def examine(mutants: tuple[Mutant, ...], result: Path, jobs: int = 1) -> None:
    """Run every mutant, `jobs` at a time, say what noticed it, and write `result`. Raises UramError if one survives."""
    for mutant in mutants:
        mutated((ROOT / "uram_lib" / mutant.file).read_text(encoding="utf-8"), mutant)  # before anything is run
    code = git_state("uram_lib", "tests")
    failed, count = failures(tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests)))
    if failed:
        raise UramError(f"without a mutant, {', '.join(failed)} failed already")
    print(f"as it is: {count} tests pass", flush=True)
    lines, survivors = [], []
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = pool.map(lambda mutant: failures(mutant.tests, mutant), mutants)
        for mutant, (failed, count) in zip(mutants, outcomes, strict=True):
            found = {"change": mutant.change, "tests": count, "caught_by": failed}
            lines.append({"bug": mutant.bug, "file": f"uram_lib/{mutant.file}", **found})
            print(f"{mutant.name}\n    {'caught by ' + ', '.join(failed) if failed else 'SURVIVED'}", flush=True)
            survivors += [] if failed else [mutant.name]
    text = json.dumps(code | {"mutants": lines}, indent=1) + "\n"
    write_atomically(result, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    print(f"written to {relative(result)}")
    if survivors:
        raise UramError(f"{len(survivors)} of {len(mutants)} mutants survived: {'; '.join(survivors)}")
    print(f"all {len(mutants)} mutants were caught")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    options = parser.parse_args()
    sys.exit(exit_status(lambda: examine(MUTANTS, RESULT, max(1, options.jobs))))
