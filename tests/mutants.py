"""The suite against known bugs: `make mutants`.

Each mutant is the library with one bug from public code put into it, by replacing text in a temporary copy. The tests
of that part must then fail; a mutant that they let pass has *survived*, and the exit status says so. The unchanged copy
comes first: only where its tests pass does their failing mean anything. Writes `results/mutants.json`.
"""

import argparse
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
from uram_lib.pages import MUTANTS as RESULT
from uram_lib.paths import ROOT, relative, write_atomically
from uram_lib.records import git_state

OBJECTIVES, RAM, GLIMPSE, COMPILED, CLUTTER = (
    f"tests/test_{name}.py" for name in ("objectives", "ram", "glimpse", "compiled", "clutter")
)


@dataclass(frozen=True)
class Mutant:
    """One bug. file: where, under `uram_lib`; texts: what is replaced by what, each found there exactly once; tests:
    the files of tests that must notice."""

    bug: str  # its number in the catalogue
    change: str  # what goes wrong, in words
    file: str
    texts: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.bug} in {self.file}: {self.change}"


MUTANTS = (
    Mutant("T1", "the log-probability is that of a sample that still hangs on the mean", "models/ram.py",
           (("samples.append(sample)", "samples.append(drawn)"),),
           (RAM,)),
    Mutant("T2", "the mean is detached as well as the sample", "models/ram.py",
           (("Normal(torch.stack(means, 1), ", "Normal(torch.stack(means, 1).detach(), "),),
           (RAM,)),
    Mutant("T3", "the log-probability is that of the clamped location", "models/ram.py",
           (("samples.append(sample)", "samples.append(sample.clamp(-1, 1))"),),
           (RAM,)),
    Mutant("T4", "the location enters the glimpse network with its gradient", "models/ram.py",
           (("location = (drawn if through_locations else sample)", "location = drawn"),),
           (RAM,)),
    Mutant("T4", "the sensor passes a gradient to the location", "glimpse.py",
           (("location if through_location else location.detach()", "location"),),
           (GLIMPSE,)),
    Mutant("T5", "the baseline keeps its gradient in the advantage", "objectives.py",
           (("baselines = baselines.detach()", "baselines = baselines * 1"),
            ("(log_probs * advantage.detach())", "(log_probs * advantage)")),
           (OBJECTIVES,)),
    Mutant("T5", "rewards (B,) are spread over actions instead of images", "objectives.py",
           (("reward = rewards[:, None]", "reward = rewards.repeat(log_probs.shape[1])[: log_probs.shape[1]]"),),
           (OBJECTIVES,)),
    Mutant("T6", "log-probabilities and rewards are averaged over rollouts, each alone", "objectives.py",
           (("objective = (log_probs * advantage.detach()).sum(1)",
             "objective = (log_probs.mean(0) * advantage.detach().mean(0)).sum()[None]"),),
           (OBJECTIVES,)),
    Mutant("T7", "half of an odd size is rounded down", "glimpse.py",
           (("self.size / 2 * side", "self.size // 2 * side"),),
           (GLIMPSE,)),
    Mutant("T8", "coarser patches share a corner with the finest, not its centre", "glimpse.py",
           (("self.size / 2 * side", "self.size / 2"),),
           (GLIMPSE,)),
    Mutant("T9", "the fourth scale reads boxes 6 px apart, not 8", "glimpse.py",
           (("side = 2**k\n", "side = 2 * k or 1\n"),),
           (GLIMPSE,)),
    Mutant("T9", "the fourth scale reads boxes 6 px apart, in the compiled loop", "compiled.py",
           (("x = left + j * side", "x = left + j * (6 if side == 8 else side)"),),
           (COMPILED,)),
    Mutant("T10", "images are normalised first and padded with zeros afterwards", "models/ram.py",
           (("pyramid = self.sensor.pyramid(images)\n        state",
             "pyramid = self.sensor.pyramid((images - self.patch_mean[0]) / self.patch_std[0])\n        state"),
            ("standardised = (patch - self.patch_mean) / self.patch_std", "standardised = patch")),
           (GLIMPSE,)),
    Mutant("T10", "what lies outside is not black but like the edge", "glimpse.py",
           (('padding_mode="zeros"', 'padding_mode="border"'),),
           (GLIMPSE,)),
    Mutant("T10", "what lies outside is not black, in the compiled loop", "compiled.py",
           (("level[0, 0, 0, 0] * 0 ", "level[0, 0, 0, 0] * 1 "),),
           (COMPILED,)),
    Mutant("T11", "x and y are swapped", "glimpse.py",
           (("torch.stack((x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)), -1)",
             "torch.stack((y[:, :, None].expand(-1, -1, size), x[:, None, :].expand(-1, size, -1)), -1)"),),
           (GLIMPSE,)),
    Mutant("T11", "x and y are swapped in the compiled loop", "compiled.py",
           (("math.floor(first[b, 0]), math.floor(first[b, 1])", "math.floor(first[b, 1]), math.floor(first[b, 0])"),
            ("first[b, 0] - left, first[b, 1] - top", "first[b, 1] - left, first[b, 0] - top")),
           (COMPILED,)),
    Mutant("T12", "the digit never reaches its last offset", "data/clutter.py",
           (("draw(side - frame + 1 - 2 * least, batch, 2)", "draw(side - frame - 2 * least, batch, 2)"),),
           (CLUTTER,)),
    Mutant("T14", "one more location is drawn after the last glimpse", "models/ram.py",
           (("if t < self.glimpses - 1:", "if t < self.glimpses:"),
            ("noise[:, t]", "noise[:, t % noise.shape[1]]")),
           (RAM,)),
    Mutant("T15", "the core's arguments are swapped, which equal sizes hide", "models/ram.py",
           (("CORES[core](256, hidden)", "CORES[core](hidden, 256)"),),
           (RAM,)),
    Mutant("T16", "`squeeze()` also drops a batch of one", "models/ram.py",
           (("(hiddens[:, :-1].detach())[..., 0]", "(hiddens[:, :-1].detach()).squeeze()"),),
           (RAM,)),
    Mutant("T18", "patches are shifted by up to half a pixel", "glimpse.py",
           (('padding_mode="zeros", align_corners=False', 'padding_mode="zeros", align_corners=True'),),
           (GLIMPSE,)),
    Mutant("T18", "patches are shifted by half a pixel in the compiled loop", "compiled.py",
           (("first[b, 0] - left, first[b, 1] - top", "first[b, 0] - left + 0.5, first[b, 1] - top + 0.5"),),
           (COMPILED,)),
    Mutant("D8", "J enters the loss with the sign that is printed in Eq. 14", "objectives.py",
           (("- beta2 * objective", "+ beta2 * objective"),),
           (OBJECTIVES,)),
)  # fmt: skip


def mutated(text: str, mutant: Mutant) -> str:
    """`text`, the source that the mutant changes, with its bug. Raises UramError unless each text is found once."""
    for old, new in mutant.texts:
        if (count := text.count(old)) != 1:
            raise UramError(f"{mutant.name}: {old!r} is found {count} times in uram_lib/{mutant.file}, not once")
        text = text.replace(old, new)
    return text


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
            path.write_text(mutated(path.read_text(), mutant))
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
        mutated((ROOT / "uram_lib" / mutant.file).read_text(), mutant)  # before anything is run
    code = git_state("uram_lib", "tests")
    failed, count = failures(tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests)))
    if failed:
        raise UramError(f"without a mutant, {', '.join(failed)} failed already")
    print(f"as it is: {count} tests pass", flush=True)
    lines, survivors = [], []
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = pool.map(lambda mutant: failures(mutant.tests, mutant), mutants)
        for mutant, (failed, count) in zip(mutants, outcomes, strict=True):
            lines.append({
                "bug": mutant.bug, "file": f"uram_lib/{mutant.file}", "change": mutant.change, "tests": count,
                "caught_by": failed,
            })  # fmt: skip
            print(f"{mutant.name}\n    {'caught by ' + ', '.join(failed) if failed else 'SURVIVED'}", flush=True)
            survivors += [] if failed else [mutant.name]
    text = json.dumps(code | {"mutants": lines}, indent=1) + "\n"
    write_atomically(result, lambda temporary: temporary.write_text(text))
    print(f"written to {relative(result)}")
    if survivors:
        raise UramError(f"{len(survivors)} of {len(mutants)} mutants survived: {'; '.join(survivors)}")
    print(f"all {len(mutants)} mutants were caught")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    options = parser.parse_args()
    sys.exit(exit_status(lambda: examine(MUTANTS, RESULT, max(1, options.jobs))))
