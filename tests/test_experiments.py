"""Configurations: their hashes, and what a recipe says step by step."""

import dataclasses

import pytest

from uram_lib import UramError, experiments, paper, records
from uram_lib.experiments import Config, experiment


def test_every_row_of_the_paper_with_a_recipe_is_an_experiment():
    """The paper's rows in its order, among rows that it does not have."""
    for table, rows in experiments.ROWS.items():
        theirs = [row.row for row in paper.ROWS if row.table == table]
        assert [row for row in rows if row in theirs] == theirs


def test_rows_that_are_compared_differ_in_nothing_else():
    """Each contrast of a claim within a table is between two configurations that differ in what the claim is about."""
    about = {"model", "glimpses", "entropy", "context", "patch_size", "scales"}
    for claim in paper.CLAIMS:
        for contrast in claim.contrasts:
            if contrast.table not in experiments.ROWS:
                continue
            for preset in experiments.RECIPES[contrast.table]:
                one, other = (
                    dataclasses.asdict(experiment(contrast.table, row, preset).config)
                    for row in (contrast.worse, contrast.better)
                )
                if "cnn" in one["model"] or "fc" in one["model"]:
                    continue
                assert {key for key in one if one[key] != other[key]} <= about, (claim.claim, contrast, preset)


def test_rows_of_table4_differ_in_the_model_alone_and_two_of_them_are_not_defended():
    about = {"model", "glimpses", "entropy", "context", "patch_size", "scales"}
    for preset in experiments.RECIPES["table4"]:
        first, *others = experiments.experiments("table4", preset)
        plain = dataclasses.asdict(first.config)
        assert plain["attack"] != "none" and first.protocol is not None
        for e in others:
            undefended = {"attack", "attack_steps"} if e.row.endswith("undefended") else set()
            found = dataclasses.asdict(e.config)
            assert {key for key in plain if plain[key] != found[key]} <= about | undefended, (e.row, preset)
            assert found["attack"] == ("none" if undefended else plain["attack"]) and e.protocol == first.protocol
    assert experiments.experiment("table4", "vgg16-pgd", "paper").config.width == 1
    assert experiments.experiment("table1", "fc", "quick").protocol is None


def test_published_records_are_of_the_present_configurations():
    """A recipe cannot be edited and its records left behind: `finished` would train all of it again."""
    found = records.load_records()
    assert found
    for record in found:
        present = experiment(record["table"], record["row"], record["preset"], records.dataset_name(record))
        assert record["config_hash"] == present.config.hash, (record["row"], record["seed"])


def test_a_later_field_at_its_default_leaves_the_hash_alone_and_counts_otherwise():
    config = Config("mnist", "ram", 5, glimpses=2, patch_size=8, scales=1)
    changed = {
        name: dataclasses.replace(config, **{name: value}).hash
        for name, value in {"curriculum_epochs": 3, "levels": 2, "q_hidden": 64, "region_start": "centre", "gamma": 0.5,
                            "last_epsilon": 0.1, "start": "true-centre", "standardise": False,
                            "context_form": "uniform", "last_sigma": 0.1, "epochs": 6, "width": 0.5, "augment": True,
                            "attack": "fast", "attack_steps": 3, "attack_radius": 0.1, "reward": "whole",
                            "explore_epochs": 2, "adam_epsilon": 1e-3, "precision": "bfloat16"}.items()
    }  # fmt: skip
    assert set(experiments.LATER) < set(changed)
    assert len({config.hash, *changed.values()}) == len(changed) + 1
    first = {f.name for f in dataclasses.fields(Config)} - set(experiments.LATER)
    assert len(first) == 18 and "beta2" in first  # a new field goes into LATER


def test_an_arm_differs_from_its_row_in_what_it_names_alone():
    hashes = set()
    for name, arm in experiments.ABLATIONS.items():
        preset = "paper" if arm.table == "table2" else "converged"
        theirs = experiment(arm.table, arm.row, preset).config
        ours = experiment("ablations", name, preset)
        changed = {f for f, value in dataclasses.asdict(ours.config).items() if value != getattr(theirs, f)}
        assert changed == set(arm.changes) and ours.label == arm.label, name
        hashes.add(ours.config.hash)
    assert len(hashes) == len(experiments.ABLATIONS)
    assert {e.config.dataset for e in experiments.experiments("ablations", "paper")} == {"clutter100-10"}
    assert "mnist" in {e.config.dataset for e in experiments.experiments("ablations", "converged")}
    with pytest.raises(UramError, match="unknown row 'ram-9' of ablations; one of: ram-6-entropy, "):
        experiment("ablations", "ram-9", "paper")


def test_the_factorial_is_complete():
    """Top-down x entropy x context at 6 glimpses: the table's rows and the arms make eight different cells."""
    cells = [experiment("table2", row, "paper").config for row in experiments.ROWS["table2"] if "-6" in row]
    cells += [
        experiment("ablations", arm, "paper").config for arm, a in experiments.ABLATIONS.items() if a.ledger == "G"
    ]
    found = [(c.model, c.entropy, c.context) for c in cells if (c.glimpses, c.patch_size) == (6, 12)]
    assert len(found) == len(set(found)) == 8


def test_the_curriculum_widens_linearly_and_ends():
    config = Config("clutter100-10", "ram", 12, curriculum_epochs=7)
    spreads = [config.spread(epoch) for epoch in range(1, 13)]
    assert spreads[0] == pytest.approx(0.3) and spreads[7:] == [1.0] * 5
    steps = [after - before for before, after in zip(spreads[:7], spreads[1:8], strict=True)]
    assert steps == pytest.approx([0.1] * 7)
    assert Config("clutter100-10", "ram", 12).spread(1) == 1.0


def test_the_policy_narrows_linearly_and_stays_without_a_last_sigma():
    config = Config("mnist", "ram", 4, glimpses=2, patch_size=8, scales=1, sigma=0.25)
    assert [config.sigma_at(epoch) for epoch in (1, 4)] == [0.25, 0.25]
    narrowing = dataclasses.replace(config, last_sigma=0.1)
    assert [narrowing.sigma_at(epoch) for epoch in (1, 2, 3, 4)] == pytest.approx([0.25, 0.2, 0.15, 0.1])
    assert dataclasses.replace(narrowing, epochs=1).sigma_at(1) == 0.1


def test_exploration_falls_linearly_over_the_first_half():
    config = Config("clutter100-10", "unified", 12, last_epsilon=0.05)
    assert [config.epsilon(step, 100) for step in (0, 25, 50, 51, 99)] == pytest.approx([1, 0.525, 0.05, 0.05, 0.05])


@pytest.mark.parametrize(
    "field, value",
    [("model", "RAM"), ("schedule", "linear"), ("precision", "bf16"), ("region_start", "center"), ("attack", "fgsm")],
)
def test_a_setting_that_is_none_of_its_choices_is_refused_and_the_choices_are_listed(field, value):
    settings = {"dataset": "digits", "model": "ram", "epochs": 1} | {field: value}
    with pytest.raises(UramError, match=f"unknown {field.replace('_', ' ')} '{value}'; one of: ") as caught:
        Config(**settings)
    assert all(choice in str(caught.value) for choice in experiments.CHOICES[field])
    with pytest.raises(UramError, match="attack_steps of 1 or more, got 0"):
        Config("digits", "vgg16", 1, attack="pgd")
