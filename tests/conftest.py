"""Shared fixtures. Tests never download, never write into `results/`, and use one thread, so that bits agree."""

import os
import tempfile

# Before anything imports the library: a test that forgets its own folder still cannot touch a reader's runs.
os.environ["URAM_OFFLINE"] = "1"
os.environ["URAM_LOCAL"] = tempfile.mkdtemp(prefix="uram-tests-")
for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):  # of the make that runs the tests, or the one under test talks of it
    os.environ.pop(name, None)
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import contextlib  # noqa: E402
import dataclasses  # noqa: E402
import functools  # noqa: E402
import resource  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import Phase, settings  # noqa: E402

from uram_lib import UramError, data, experiments  # noqa: E402
from uram_lib.common import ROOT  # noqa: E402
from uram_lib.config import Config  # noqa: E402
from uram_lib.data.base import Dataset  # noqa: E402
from uram_lib.evaluation import LOOKS, Evaluation  # noqa: E402
from uram_lib.models import RAM, Model  # noqa: E402
from uram_lib.runs import machine, records  # noqa: E402
from uram_lib.training import Trained  # noqa: E402

torch.set_num_threads(1)
settings.register_profile("suite", deadline=None, max_examples=40, derandomize=True)
# For `make mutants`: that a test fails is enough, the smallest example that fails is not looked for.
settings.register_profile("first-failure", settings.get_profile("suite"), phases=(Phase.explicit, Phase.generate))
settings.load_profile("suite")


def pytest_unconfigure(config):
    shutil.rmtree(os.environ["URAM_LOCAL"], ignore_errors=True)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20_211)


@pytest.fixture(autouse=True)
def mistakes_in_one_line(monkeypatch):
    """Whatever the library refuses in a test, it says in one line."""

    def one_line(error: UramError, said: str) -> None:
        assert said.strip() and "\n" not in said, f"not one line: {said!r}"

    monkeypatch.setattr(UramError, "__init__", one_line)


@pytest.fixture
def local(tmp_path, monkeypatch) -> Path:
    """A results folder of the test's own, in `URAM_LOCAL`."""
    folder = tmp_path / "local"
    monkeypatch.setenv("URAM_LOCAL", str(folder))
    return folder


@pytest.fixture
def copy_of_project(tmp_path) -> Path:
    """The library alone in another place: its `data/` is empty and its `results/` may be written."""
    shutil.copytree(ROOT / "uram_lib", tmp_path / "project" / "uram_lib", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "project"


def python(*words: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    """Run `python words` in a process of its own. With -m or -c the working directory comes first on the path, so `cwd`
    chooses which copy of the library runs."""
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def uram(local):
    """Run the real command line in a process of its own: uram("run", "table1", ...)."""
    return functools.partial(python, "-m", "uram_lib.cli")


def wait_for(condition, what: str = "", seconds: float = 400) -> None:
    """A loaded machine takes half a minute to import PyTorch."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def mnist() -> Dataset:
    """MNIST where it is on this machine, else the test is skipped."""
    try:
        return data.load("mnist")
    except data.DataUnavailable as error:
        pytest.skip(f"needs MNIST in URAM_DATA: {error}")


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return data.load("digits")


@pytest.fixture(scope="session")
def few_digits(digits) -> Dataset:
    """The embedded digits cut to 200 training and 100 validation images: an epoch takes a blink."""
    return dataclasses.replace(digits, train=digits.train.at(slice(200)), validation=digits.validation.at(slice(100)))


class Linear(Model):
    """Logits (-m, m) of images (B, 2, 4, 4) with m = w (x - 1/2); `features.std` is where a network of VGG16 keeps that
    of its images."""

    def __init__(self, seed: int):
        super().__init__(None, (2, 4, 4))
        self.weight = torch.nn.Parameter(torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(seed)))
        self.features = torch.nn.Module()
        self.features.register_buffer("std", torch.full((2, 1, 1), 0.2))

    def margin(self, images: torch.Tensor) -> torch.Tensor:
        return ((images - 0.5) * self.weight).sum((1, 2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        m = self.margin(images)
        return torch.stack((-m, m), -1)


def linear(seed: int):
    """(a linear model, 200 images that no epsilon up to 0.2 pushes out of [0, 1], their labels); the margins spread
    over what such epsilons reach."""
    model, g = Linear(seed), torch.Generator().manual_seed(seed + 1)
    along = 0.4 * torch.rand(200, 1, 1, 1, generator=g) - 0.2
    images = 0.45 + 0.1 * torch.rand(200, 2, 4, 4, generator=g) + along * model.weight.detach().sign()
    return model, images, (model.margin(images) > 0).long()


def warmed(model: Model, images: torch.Tensor, draws: dict) -> Model:
    """`model` in evaluation mode, its normalisation at the statistics of these inputs: with those it is made with,
    thirteen untrained layers pass next to nothing on."""
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        model.train().rollout(images, draws)
    return model.eval()


def small_config(**changes) -> Config:
    """A RAM of three glimpses, trained for three epochs of four steps."""
    settings = {"dataset": "digits", "model": "ram", "epochs": 3, "batch_size": 50}
    return Config(**settings | {"glimpses": 3, "patch_size": 8, "scales": 1} | changes)


@pytest.fixture(name="small_config")
def small_config_fixture():
    return small_config


@pytest.fixture
def small_ram():
    """Builder of RAMs whose sizes all differ, so that swapped arguments cannot hide; images are (B, 3, 31, 45)."""

    def build(seed: int = 0, hidden: int = 48, **changes) -> RAM:
        config = Config("digits", "ram", 1, **{"glimpses": 4, "patch_size": 7, "scales": 2} | changes)
        return RAM(config, (3, 31, 45), 11, hidden).initialise(seed)

    return build


@pytest.fixture
def rollout_inputs(generator):
    """(images, start, noise, labels) for `small_ram`."""

    def draw():
        images = torch.rand(9, 3, 31, 45, generator=generator)
        start = torch.rand(9, 2, generator=generator) * 2 - 1
        noise = torch.randn(9, 3, 2, generator=generator)
        return images, start, noise, torch.randint(11, (9,), generator=generator)

    return draw


@pytest.fixture
def made_record():
    """A record made by the library from outcomes (S, N) of bool, as a finished run would be. measured: fields of
    `Evaluation` in place of the plain ones."""

    def make(row, seed, correct, preset="strong", dataset="mnist", table="table1", **measured) -> dict:
        experiment = experiments.experiment(table, row, preset, dataset)
        glimpses = experiment.config.glimpses
        per_glimpse = [*map(float, range(glimpses))]
        trained = Trained(None, 2, {"val_error": [3.0, 2.0 + seed]}, seconds=120.0, rollouts=1200)
        sampled = (correct[0], correct[-1]) if glimpses else (None, None)
        looks = dict.fromkeys(LOOKS, per_glimpse) if glimpses else {}
        if experiment.config.model == "unified":
            chosen = {"action_histogram": [[0.1, 0.2, 0.3, 0.4]], "q_values": [[0.5, 0.6, 0.7, 0.8]]}
            looks["top_down"] = chosen | {"in_region_percent": 60.0 + seed}
        name, _, variant = dataset.partition("-")
        described = {"name": name, "variant": variant, "sizes": {"test": correct.shape[1]}, "checksum": "md5:0"}
        test = dataclasses.replace(Evaluation(correct, *sampled, looks), **measured)
        sessions = [machine.session("cpu", 1)]
        return records.make_record(experiment, seed, described, trained, test, sessions)

    return make


@pytest.fixture
def write_made(made_record):
    """Write such records under a root as the library lays them out; returns the paths."""

    def write(root: Path, outcomes: dict[tuple[str, int], torch.Tensor], **details) -> list[Path]:
        paths = []
        for (row, seed), correct in outcomes.items():
            record = made_record(row, seed, correct, **details)
            folder = root / record["table"] / record["preset"] / records.dataset_name(record) / row
            paths.append(folder / f"seed-{seed}.json")
            records.write_record(paths[-1], record)
        return paths

    return write


@pytest.fixture
def full_disk():
    """A context in which no file can grow beyond `size` bytes: writes then really fail, as on a full disk."""

    @contextlib.contextmanager
    def limited(size: int):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
