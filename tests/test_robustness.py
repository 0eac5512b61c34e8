"""Table 4's evaluation: a linear oracle through all of it, the worst case, exact resume, records and verdicts."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from uram_lib import data, experiments, notebook, records, robustness, sweep, tables
from uram_lib.evaluation import Evaluation, draws_in_testing, stratified
from uram_lib.experiments import Protocol, experiment
from uram_lib.models import VGG16, AttentiveVGG, RandomGlimpseVGG, under
from uram_lib.robustness import EOT, LITERAL, NOISE, PGD, SQUARE, Robustness, Target, evaluate_robustness
from uram_lib.seeding import initialise
from uram_lib.training import Trained

SHAPE = (2, 4, 4)
TINY = Protocol(
    images=12,
    fewer=6,
    steps=2,
    restarts=2,
    draws=3,
    queries=4,
    draws_studied=(1, 2),
    steps_studied=(1, 2),
    epsilons=(0, 0.1, 1),
    epsilon=0.1,
)


class Linear(nn.Module):
    """Logits (-m, m) with m = w (x - 1/2); `features.std` is where a network of VGG16 keeps that of its images."""

    def __init__(self, seed: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)))
        self.features = nn.Module()
        self.features.register_buffer("std", torch.full((2, 1, 1), 0.2))

    def margin(self, images: Tensor) -> Tensor:
        return ((images - 0.5) * self.weight).sum((1, 2, 3))

    def forward(self, images: Tensor) -> Tensor:
        m = self.margin(images)
        return torch.stack((-m, m), -1)


@pytest.fixture
def linear():
    """(a linear model, 200 images whose margins spread over what epsilons up to 0.2 reach, one label in ten wrong)."""
    g = torch.Generator().manual_seed(5)
    model = Linear(3)
    along = 0.4 * torch.rand(200, 1, 1, 1, generator=g) - 0.2
    images = 0.45 + 0.1 * torch.rand(200, *SHAPE, generator=g) + along * model.weight.detach().sign()
    images = (255 * images).round().to(torch.uint8)
    labels = (model.margin(images / 255) > 0).long()
    labels[::10] = 1 - labels[::10]
    return model, data.Split(images, labels, torch.zeros(200, 2))


def test_oracle11_the_whole_evaluation_of_a_linear_model(linear):
    """Closed form: an image stands if its margin exceeds epsilon |w|_1. White-box attacks reach it, all others stay
    above it, nothing is raised, and the curve over epsilon follows it up to where nothing stands."""
    model, split = linear
    protocol = Protocol(images=0, fewer=50, restarts=2, queries=20, epsilon=0.08, epsilons=(0, 0.04, 0.08, 0.16, 1))
    found = evaluate_robustness(model, split, protocol, {"another": Linear(4)})
    order = stratified(split.labels)
    images, labels = split.floats()[order], split.labels[order]
    margins = (2 * labels - 1) * model.margin(images).detach()  # positive where it is right
    reach = model.weight.detach().abs().sum()

    def truth(epsilon):
        return margins > epsilon * reach

    assert found.correct.shape == (1, 200) and torch.equal(found.worst, truth(0.08))
    assert 0.2 < found.worst.float().mean() < 0.6
    for name in (LITERAL, PGD, robustness.MARGIN):
        assert torch.equal(found.outcomes[name], truth(0.08)), name
    for name in (NOISE, "transfer from another"):
        assert (found.outcomes[name] >= truth(0.08)).all() and (found.outcomes[name] != truth(0.08)).any(), name
    assert len(found.outcomes[SQUARE]) == 50 and (found.outcomes[SQUARE] >= truth(0.08)[:50]).all()
    metrics = found.metrics()
    assert metrics["normalised_epsilon"] == pytest.approx(0.3 * 0.2)
    assert [point["epsilon"] for point in metrics["by_epsilon"]] == [0, 0.04, 0.06, 0.08, 0.16, 1]
    for point in metrics["by_epsilon"][:-1]:
        assert point[PGD] == point[LITERAL] == pytest.approx(100 * truth(point["epsilon"]).float().mean().item())
    assert metrics["by_epsilon"][-1][PGD] == 0 and metrics["flags"] == [] == metrics["by_draws"]
    assert metrics["clean_accuracy"] == pytest.approx(90) == metrics["clean_accuracy_attacked_images"]
    assert metrics["robust_accuracy"] == metrics["robust_accuracy_start_unknown"]  # it draws nothing
    assert metrics["decided_by"] == LITERAL and set(found.names) <= set(found.seconds)


def slim(kind=AttentiveVGG, seed: int = 0) -> nn.Module:
    """A slim network whose running statistics are those of noise, so that it tells images apart."""
    model = initialise(kind((3, 32, 32), 5, glimpses=3, sigma=0.15, width=1 / 32), seed)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    images = torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.train()(images, *draws_in_testing(model, images, sampled=True))
    return model.eval()


@pytest.fixture
def noise_images():
    """30 noisy images and, for a network, the labels that it gives them."""
    images = (255 * torch.rand(30, 3, 32, 32, generator=torch.Generator().manual_seed(2))).to(torch.uint8)

    def split_for(model: nn.Module) -> data.Split:
        floats = images / 255
        with torch.no_grad():
            labels = under(model, *draws_in_testing(model, floats))(floats).argmax(-1)
        return data.Split(images, labels, torch.full((30, 2), 16.0))

    return split_for


@pytest.mark.parametrize("kind", [AttentiveVGG, RandomGlimpseVGG])
def test_the_worst_case_is_below_every_attack(noise_images, kind):
    model = slim(kind)
    split = noise_images(model)
    source = initialise(VGG16((3, 32, 32), 5, 1 / 32), 1).eval()
    found = evaluate_robustness(model, split, TINY, {"vgg16-pgd": source})
    white = [LITERAL, PGD, robustness.MARGIN, robustness.FEATURES, robustness.LOCATIONS, EOT, robustness.EOT_MARGIN]
    assert found.names == [*white, "transfer from vgg16-pgd", SQUARE, NOISE]
    assert len(found.worst) == 12
    for name in found.names:
        tried = len(found.outcomes[name])
        assert tried == (6 if name == SQUARE else 12)
        assert (found.worst[:tried] <= found.outcomes[name]).all()
        assert (found.outcomes[name] <= found.outcomes["clean"][:tried]).all()
    blindfold = [EOT, robustness.EOT_MARGIN, "transfer from vgg16-pgd", NOISE]  # those that do not know the draws
    assert torch.equal(found.secret, torch.stack([found.outcomes[name] for name in blindfold]).all(0))
    assert (found.worst <= found.secret).all() and found.by_draws.keys() == {1, 2}
    assert found.accuracy(found.decided_by) == min(found.accuracy(name) for name in found.names if name != SQUARE)
    text = json.loads(json.dumps(found.metrics()))
    assert text["robust_accuracy"] == pytest.approx(100 * found.worst.float().mean().item())
    for name in found.names:
        assert np.array_equal(records.unpack(text["outcomes"][name]), found.outcomes[name].numpy())
    assert len(text["glimpse_distance_px"]) == 3


def test_an_evaluation_that_is_cut_goes_on_after_its_last_attack(noise_images, tmp_path, monkeypatch):
    """Cut after three attacks: those are not done again, and the outcomes are those of an uncut one."""
    model = slim()
    split = noise_images(model)
    config = experiment("table4", "ours-vgg16-pgd", "smoke").config
    whole = evaluate_robustness(model, split, TINY, {})
    real, asked, cut = robustness.outcome, [], [4]

    def counted(target, clean, name, attack):
        asked.append(name)
        if len(asked) in cut:
            raise KeyboardInterrupt
        return real(target, clean, name, attack)

    monkeypatch.setattr(robustness, "outcome", counted)
    resume = (tmp_path / "attacks.pt", config, 0)
    with pytest.raises(KeyboardInterrupt):
        evaluate_robustness(model, split, TINY, {}, resume)
    cut.clear()
    resumed = evaluate_robustness(model, split, TINY, {}, resume)
    assert asked[4] == asked[3] and not set(asked[:3]) & set(asked[4:])
    assert whole.outcomes.keys() == resumed.outcomes.keys()
    assert all(torch.equal(outcome, resumed.outcomes[name]) for name, outcome in whole.outcomes.items())
    asked.clear()
    evaluate_robustness(model, split, dataclasses.replace(TINY, steps=1), {}, resume)
    assert len(asked) == len(resumed.seconds)  # another protocol: nothing of it is taken over


@pytest.mark.parametrize("kind", [AttentiveVGG, RandomGlimpseVGG])
def test_rollouts_of_an_image_are_its_own(kind):
    """Several at once are what each is alone, and do not depend on which other images are asked for."""
    model = slim(kind)
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    target = Target(model, images, torch.zeros(5, dtype=torch.long), draws_in_testing(model, images))
    every = torch.arange(5)
    with torch.no_grad():
        logits = target.rolled_out(every, 4, "EOT", 0)(images)  # (S, B, K)
        some = target.rolled_out(every[[3, 1]], 4, "EOT", 0)(images[[3, 1]])
        other = target.rolled_out(every, 4, "EOT", 1)(images)
        rollouts = target.rolled_out(every, 4, "EOT", 0)
        parts = [None if d is None else d.view(4, 5, *d.shape[1:]) for d in (rollouts.start, rollouts.noise)]
        alone = [under(model, *(None if p is None else p[s] for p in parts))(images) for s in range(4)]
    assert logits.shape == (4, 5, 5) and not torch.equal(logits, other)
    torch.testing.assert_close(logits, torch.stack(alone), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(some, logits[:, [3, 1]], rtol=1e-4, atol=1e-5)


def test_the_choice_of_test_images_holds_all_classes_alike():
    labels = torch.randint(7, (500,), generator=torch.Generator().manual_seed(0))
    for count in (7, 70, 200):
        counts = labels[stratified(labels, count)].bincount()
        assert counts.max() - counts.min() <= 1 and counts.sum() == count
    whole = stratified(labels)
    assert torch.equal(whole.sort().values, torch.arange(500)) and torch.equal(whole[:70], stratified(labels, 70))
    assert not torch.equal(whole[:70].sort().values, whole[:70])


def test_kept_outcomes_are_not_taken_over_for_other_weights(noise_images, tmp_path):
    one, other = slim(seed=0), slim(seed=3)
    place = (tmp_path / "kept.pt", experiments.experiment("table4", "ours-vgg16-pgd", "smoke").config, 0)
    split = noise_images(one)
    evaluate_robustness(one, split, TINY, {}, place)
    found, anew = evaluate_robustness(other, split, TINY, {}, place), evaluate_robustness(other, split, TINY, {})
    assert all(torch.equal(found.outcomes[name], outcome) for name, outcome in anew.outcomes.items())
    again = evaluate_robustness(other, split, TINY, {}, place)
    assert again.seconds == found.seconds  # nothing was done anew


@pytest.fixture
def shrunken(monkeypatch):
    """Experiments of Table 4 whose training takes two steps and whose evaluation is tiny."""
    real = experiments.experiment

    def small(*place):
        e = real(*place)
        config = dataclasses.replace(e.config, epochs=1, width=1 / 32, batch_size=700)
        return dataclasses.replace(e, config=config, protocol=dataclasses.replace(TINY, epsilon=8 / 255))

    monkeypatch.setattr(sweep, "experiment", small)
    return small


def test_a_run_trains_the_networks_it_transfers_from_once_and_writes_a_record(shrunken, local, monkeypatch):
    trained, real = [], sweep.train
    monkeypatch.setattr(sweep, "train", lambda jobs, *rest: trained.append(jobs[0].experiment.row) or real(jobs, *rest))
    jobs = [sweep.Job(shrunken("table4", row, "smoke"), 0, publish=False) for row in ("ours-vgg16-pgd", "vgg16-pgd")]
    sweep.run_group((jobs[0],), "cpu")
    assert trained == ["ours-vgg16-pgd", "vgg16-undefended", "vgg16-pgd"]
    assert jobs[1].state.exists() and not jobs[0].state.exists()  # its own run goes on from there
    assert len(json.loads(jobs[1].sessions.read_text())) == 1  # and will tell of the session that trained it
    sweep.run_group((jobs[1],), "cpu")
    assert trained[3:] == ["vgg16-pgd"]  # which finds all its epochs done
    for job in jobs:
        record = records.read_record(job.record)
        correct = records.unpack(record["test_correct"])
        assert correct.shape == (1, 12) and record["dataset"]["variant"] == "colour"
        assert record["metrics"]["robust_accuracy"] == pytest.approx(100 * correct.mean(), abs=1e-3)
        assert set(record["provenance"]["attack_seconds"]) >= set(record["metrics"]["accuracy_under"])
        assert not {"test_error", "test_error_by_start"} & record["metrics"].keys()
        assert len(record["provenance"].get("sessions", [0])) == (2 if job is jobs[1] else 1)
    assert f"transfer from {jobs[1].experiment.row}" in records.read_record(jobs[0].record)["metrics"]["accuracy_under"]
    assert not list(local.glob("state/*.attacks.pt")) and not list(local.glob("checkpoints/**/*"))


def test_what_others_wait_for_is_trained_first(local):
    plan = sweep.plan("table4", "smoke", seeds=(0, 1), device="cpu", together=1)
    rows = [group[0].experiment.row for group in plan.groups]
    assert set(rows[:4]) == set(experiments.TRANSFER_FROM) and rows[4].startswith("ours") and len(rows) == 12
    title = notebook.comparison(plan).splitlines()[1]
    assert title.startswith("Table 4: ") and title.endswith("robust accuracy in % [95 % interval]")


def robust_record(row: str, seed: int, worst: Tensor, preset: str = "converged", dataset: str = "cifar10-jpeg") -> dict:
    """A record as a finished run of Table 4 would be. worst: (N,) bool."""
    names = list(robustness.FACED_BY_ALL)
    outcomes = {name: torch.ones_like(worst) for name in ("clean", *names)} | {PGD: worst}
    outcomes |= {f"{name}, 0.0314": outcomes[name] for name in names}
    outcomes |= {SQUARE: worst[:5], robustness.ANY_IMAGE: torch.zeros_like(worst)}
    e = experiment("table4", row, preset, dataset)
    outcomes |= {f"{PGD}, {steps} steps": worst for steps in e.protocol.steps_studied}
    test = Robustness(
        e.protocol, outcomes, worst, worst, Evaluation(torch.ones(1, 40, dtype=torch.bool), None, [], [], []),
        names, [0.0314], 0.07, dict.fromkeys(names, 12.0),
    )  # fmt: skip
    name, _, variant = dataset.partition("-")
    described = {"name": name, "variant": variant, "sizes": {"test": 10_000}, "checksum": "md5:0"}
    trained = Trained(None, 1, {"val_error": [40.0], "val_robust_error": [60.0]}, seconds=60.0, images=600)
    run = records.provenance([records.session(torch.device("cpu"))], trained)
    return records.make_record(e, seed, described, trained, test, run | {"attack_seconds": test.seconds})


def standing(count: int) -> Tensor:
    """(200,): the first `count` images stand."""
    return torch.arange(200) < count


@pytest.fixture
def published():
    """Three seeds of both rows on the JPEG copy; ours leaves ten points more standing."""
    return [robust_record(row, seed, standing(count + seed))
            for row, count in (("vgg16-pgd", 80), ("ours-vgg16-pgd", 100)) for seed in (0, 1, 2)]  # fmt: skip


TRANSFER = "transfer from vgg16-pgd"


@pytest.mark.parametrize(
    "planted, sentence",
    [
        ({}, None),
        ({LITERAL: 60}, "One step beats many: accuracy is 30.0 % under FGSM and 40.0 % under PGD."),
        ({TRANSFER: 60}, f"30.0 % under {TRANSFER} and 40.0 % under gradient attacks."),
        ({NOISE: 60}, "30.0 % under noise and 40.0 % under gradient attacks."),
        ({SQUARE: 45}, "45.0 % under Square attack and 50.0 % under gradient attacks."),
        ({robustness.ANY_IMAGE: 1}, "(epsilon = 1) leaves accuracy at 0.5 %."),
        ({f"{EOT}, 40 rollouts": 10}, "45.0 % with 20 draws, 10.0 % with 40."),
        ({f"{PGD}, 100 steps": 35}, "40.0 % with 30 steps, 35.0 % with 100."),
        # The strongest attack with gradients is what the others are held against.
        ({TRANSFER: 60, robustness.LOCATIONS: 60}, None),
        ({TRANSFER: 60, robustness.EOT_MARGIN: 60}, None),
        ({LITERAL: 79, TRANSFER: 79, NOISE: 79, SQUARE: 49}, None),  # within one point
    ],
)
def test_each_flag_of_an_evaluation_is_raised_by_a_planted_case(planted, sentence):
    """200 images, the first 100 of them for Square and the studies. PGD leaves 40 % of all right, but 50 % of the first
    100, which is what Square is held against. planted: how many images stand instead."""
    count = {"clean": 180, LITERAL: 100, PGD: 80, robustness.MARGIN: 90, robustness.FEATURES: 120,
             robustness.LOCATIONS: 80, EOT: 100, robustness.EOT_MARGIN: 100, TRANSFER: 140, NOISE: 170,
             robustness.ANY_IMAGE: 0, SQUARE: 70, f"{EOT}, 10 rollouts": 60, f"{EOT}, 20 rollouts": 45,
             f"{EOT}, 40 rollouts": 45, f"{PGD}, 30 steps": 40, f"{PGD}, 100 steps": 40} | planted  # fmt: skip
    studied = [name for name in count if name.endswith(("rollouts", "steps"))]
    outcomes = {}
    for name, stand in count.items():
        size = 100 if name == SQUARE or name in studied else 200
        outcomes[name] = torch.arange(size).view(2, -1).T.flatten() < stand  # at 0, 2, 4, ..., then at 1, 3, 5, ...
    protocol = Protocol(images=200, fewer=100, draws_studied=(10, 20, 40), steps_studied=(30, 100))
    names = [name for name in count if name not in ("clean", robustness.ANY_IMAGE, *studied)]
    test = Robustness(
        protocol, outcomes, outcomes[PGD], outcomes[PGD],
        Evaluation(torch.ones(1, 40, dtype=torch.bool), None, [], [], []), names, [], 0.07, {},
    )  # fmt: skip
    if sentence is None:
        assert test.flags == []
    else:
        (flag,) = test.flags
        assert sentence in flag


def test_the_papers_values_never_stand_beside_a_copy_of_its_data(published):
    copy = tables.table("table4", published)
    assert list(copy["row"]) == ["vgg16-pgd", "ours-vgg16-pgd"] and set(copy["metric"]) == {"robust_accuracy"}
    assert copy["paper"].isna().all() and copy["delta"].isna().all() and (copy["verdict"] == "").all()
    assert list(copy["ours_mean"]) == pytest.approx([40.5, 50.5])
    own = tables.table("table4", [robust_record("vgg16-pgd", 0, standing(40), dataset="cifar10")])
    assert list(own["paper"]) == [47.76] and list(own["verdict"]) == ["worse"]


def test_claim_c8_is_judged_on_the_copy_by_name_and_says_which_attack_decided(published):
    (line,) = tables.claims(published).to_dict("records")
    assert line["claim"] == "C8" and line["part"] == "robust accuracy, CIFAR-10 (JPEG re-encoded)"
    assert line["our_effect"] == pytest.approx(10) and line["paper_effect"] == pytest.approx(6.54)
    assert line["verdict"] == "supported" and line["n_pairs"] == 3
    assert line["evidence"].startswith("results/runs/table4/converged/cifar10-jpeg/{vgg16-pgd,ours-vgg16-pgd}")
    assert line["evidence"].endswith("; vgg16-pgd broken most by PGD; ours-vgg16-pgd broken most by PGD")
    own = [robust_record(r["row"], r["seed"], standing(90), dataset="cifar10") for r in published]
    (line,) = tables.claims(published + own).to_dict("records")  # the paper's own data set comes first
    assert line["part"] == "robust accuracy" and line["our_effect"] == 0


def test_details_hold_every_attack_and_the_curves(published):
    found = tables.details("table4", published)
    ours = found[found["row"] == "ours-vgg16-pgd"].set_index("quantity")["value"]
    assert ours["accuracy under PGD"] == pytest.approx(50.5) == ours["accuracy under PGD, epsilon 0.0314"]
    assert ours["robust accuracy, attacks on all rows"] == pytest.approx(50.5)
    assert ours["accuracy under Eq. 15 by the letter"] == 100 and ours["evaluation minutes"] == 1
    assert ours["clean accuracy, whole test set"] == 100 and ours["red flags"] == 0


def test_the_minutes_announced_hold_training_and_attacks(published, monkeypatch):
    """A minute for all 30 epochs, 12 seconds for each of five attacks."""
    monkeypatch.setattr(records, "load_records", lambda **_: published)
    assert sweep.seconds_a_run(experiment("table4", "vgg16-pgd", "converged")) == pytest.approx(60 + 5 * 12)
    assert sweep.seconds_a_run(experiment("table4", "vgg16-pgd", "paper")) is None  # of another width


def test_comparison_names_the_copy(published):
    shown = tables.compare([experiment("table4", "vgg16-pgd", "quick", "cifar10-jpeg")], published, published, "quick")
    assert shown.loc["vgg16-pgd", "published"].endswith("converged, CIFAR-10 (JPEG re-encoded)")
    assert shown.loc["vgg16-pgd", "paper"] == "47.76" and shown.loc["vgg16-pgd", "this machine"] == "–"


def test_a_control_has_a_name_for_readers_and_no_value_of_the_papers():
    shown = tables.compare(experiments.experiments("table4", "quick"), [], [], "quick")
    assert shown.loc["vgg16-mlp", "model"] == "Perceptron + VGG16 + PGD" and shown.loc["vgg16-mlp", "paper"] == "–"
    named = shown["model"].tolist()
    assert len(set(named)) == len(named) and not set(named) & set(shown.index)


def test_a_data_set_of_another_size_is_refused_in_one_line():
    from uram_lib import UramError

    with pytest.raises(UramError, match="table4 cannot read digits: VGG16 takes images of 32x32, got 28x28"):
        sweep.plan("table4", "smoke", dataset="digits")
