"""Configurations: what they refuse, their hashes, what each epoch is, old records; rows, presets and readings."""

import dataclasses
import itertools

import pytest
from uram_book.tables import of_older_recipe

from uram_lib import UramError, experiments, paper
from uram_lib.config import CHOICES, LIMITS, Config
from uram_lib.experiments import PRESETS, READINGS, RECIPES, ROWS, experiment, label_of
from uram_lib.runs import records

PLAIN = Config("mnist", "ram", 5, glimpses=2, patch_size=8, scales=1)
DRAM = Config("svhn", "dram", 5, glimpses=18, patch_size=12, scales=2, reward="cumulative")
# What the rows that a claim compares may differ in.
ABOUT = {
    "C1": {"entropy"}, "C2": {"context"}, "C3": {"model", "chooser_reward"}, "C4": {"entropy", "context"},
    "C5": {"glimpses"}, "C6": {"entropy", "context"}, "C10": {"model", "chooser_reward"}, "C12": {"entropy"},
    "C8": {"model", "glimpses", "patch_size", "scales", "entropy", "context"},
    "C13": {"model", "glimpses", "entropy", "context", "chooser_reward"},
}  # fmt: skip


def changed(one: Config, other: Config) -> set[str]:
    return {f.name for f in dataclasses.fields(Config) if getattr(one, f.name) != getattr(other, f.name)}


# --- Config


@pytest.mark.parametrize("field", CHOICES)
def test_a_setting_that_is_none_of_its_choices_is_refused_and_the_choices_are_listed(field):
    with pytest.raises(UramError, match=f"^unknown {field.replace('_', ' ')} 'no'; one of: ") as caught:
        dataclasses.replace(PLAIN, **{field: "no"})
    assert all(str(choice) in str(caught.value) for choice in CHOICES[field])


@pytest.mark.parametrize("field", LIMITS)
def test_numbers_beyond_their_limits_are_refused(field):
    least, most = LIMITS[field]
    for value in (least - 1, most + 1, float("nan"), float("inf")):
        with pytest.raises(UramError, match=f"^{field} must be from {least} to {most}, got {value}$"):
            dataclasses.replace(PLAIN, **{field: value})


def test_every_field_is_limited_or_has_choices_or_is_a_switch_or_the_data_set():
    switches = {f.name for f in dataclasses.fields(Config) if isinstance(f.default, bool)}
    assert {f.name for f in dataclasses.fields(Config)} == switches | CHOICES.keys() | LIMITS.keys() | {"dataset"}


@pytest.mark.parametrize("plain, changes, said", [
    (PLAIN, {"attack": "pgd"}, "attack_steps of 1 or more, got 0"),
    (PLAIN, {"forget_bias": 1.0}, "it goes with core=lstm or model=dram"),
    (PLAIN, {"levels": 2, "regions": 3}, "levels=2 goes with regions=2"),
    (PLAIN, {"reward": "whole"}, "reward=whole does not go with model=ram"),
    (DRAM, {"reward": "outcome"}, "reward=outcome does not go with model=dram"),
    (DRAM, {"glimpses": 13}, "glimpses must be a multiple of 6 for model=dram, got 13"),
    (DRAM, {"core": "lstm"}, "core has no effect on model=dram"),
    (DRAM, {"entropy_patch": "before"}, "entropy_patch has no effect on model=dram"),
    *[(plain, {name: 0}, f"{name} must be at least 1 for model={plain.model}, got 0")
      for name in ("glimpses", "patch_size", "scales") for plain in (PLAIN, DRAM)],
])  # fmt: skip
def test_settings_that_do_not_go_together_are_refused_in_one_line(plain, changes, said):
    with pytest.raises(UramError, match=said):
        dataclasses.replace(plain, **changes)


def test_the_hash_is_over_what_is_not_at_its_default():
    """So a new field leaves every published hash alone, and each other value counts."""
    other = {"dataset": "digits", "learning_rate": 0.5, "levels": 2, "regions": 3, "forget_bias": 1.0}
    hashes = {PLAIN.hash, dataclasses.replace(PLAIN, core="lstm").hash}
    for f in dataclasses.fields(Config):
        if f.name in CHOICES and f.name not in other:
            found = [value for value in CHOICES[f.name] if value not in (getattr(PLAIN, f.name), "dram")]
            found = "probability" if f.name == "reward" else found[0]
        elif isinstance(f.default, bool):
            found = not f.default
        else:
            found = other.get(f.name, LIMITS.get(f.name, (0, 0))[1])
        beside = {"attack": {"attack_steps": 1}, "forget_bias": {"core": "lstm"}}.get(f.name, {})
        hashes.add(dataclasses.replace(PLAIN, **{f.name: found} | beside).hash)
    assert len(hashes) == len(dataclasses.fields(Config)) + 1  # LSTMs were there already
    assert dataclasses.replace(PLAIN, sigma=0.15).hash == PLAIN.hash and len(PLAIN.hash) == 12
    assert dataclasses.replace(PLAIN, sigma=1).hash == dataclasses.replace(PLAIN, sigma=1.0).hash


def test_an_epochs_configuration():
    """The policy narrows linearly; it is trained after it explored; the chooser is alone at first."""
    assert [PLAIN.at(epoch) for epoch in (1, 5)] == [PLAIN, PLAIN]
    one = dataclasses.replace(PLAIN, epochs=4, sigma=0.25, last_sigma=0.1, explore_epochs=2, chooser_alone_epochs=1)
    assert [one.at(epoch).sigma for epoch in (1, 2, 3, 4)] == pytest.approx([0.25, 0.2, 0.15, 0.1])
    assert [one.at(epoch).beta2 for epoch in (1, 2, 3, 4)] == [0, 0, one.beta2, one.beta2]
    assert [bool(one.at(epoch).chooser_alone_epochs) for epoch in (1, 2, 3, 4)] == [True, False, False, False]
    assert changed(one.at(2), one) == {"sigma", "beta2", "chooser_alone_epochs"}
    assert dataclasses.replace(one, epochs=1).at(1).sigma == 0.1


def test_the_curriculum_widens_and_exploration_falls_linearly_and_end():
    one = dataclasses.replace(PLAIN, epochs=12, curriculum_epochs=7)
    spreads = [one.spread(epoch) for epoch in range(1, 13)]
    assert spreads == pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, *[1.0] * 5]) and PLAIN.spread(1) == 1.0
    assert [one.epsilon(step, 100) for step in (0, 25, 50, 51, 99)] == pytest.approx([1, 0.525, 0.05, 0.05, 0.05])


OLD = {"entropy_offset": 0.5, "beta1": 1.0, "q_hidden": 0, "gamma": 0.99, "last_epsilon": 0.05,
       "attack_radius": 8 / 255, "context_form": "attended", "reward": "cumulative", "context": False}  # fmt: skip


@pytest.mark.parametrize("old, new", [
    ({}, {}),
    ({"context": True}, {"context": "attended"}),
    ({"context": True, "context_form": "uniform"}, {"context": "uniform"}),
    ({"context_form": "detached"}, {}),  # a form without a context
    ({"reward": "probability", "sigma": 0.3}, {"reward": "probability", "sigma": 0.3}),
])  # fmt: skip
def test_configurations_of_old_records_are_read(old, new):
    settings = dataclasses.asdict(PLAIN) | OLD | old
    assert Config.read(settings) == dataclasses.replace(PLAIN, **new)
    assert Config.read(dataclasses.asdict(dataclasses.replace(PLAIN, **new))) == dataclasses.replace(PLAIN, **new)
    for name, value in (("gamma", 0.5), ("q_hidden", 64), ("colour", "red")):  # without meaning here
        with pytest.raises(UramError, match=f"^unknown setting {name}={value!r}$"):
            Config.read(settings | {name: value})


def test_settings_are_set_from_text():
    """What is refused is in `test_bad_input`."""
    found = PLAIN.with_settings({"sigma": "0.3", "epochs": 7, "augment": True, "core": "lstm"})  # also what is no text
    with pytest.raises(UramError, match="epochs must be a whole number, got '2.7'"):
        PLAIN.with_settings({"epochs": 2.7})
    with pytest.raises(UramError, match="rows must be a list of names, got 'fc'"):
        experiments.experiments("table1", "smoke", "fc")
    assert found == dataclasses.replace(PLAIN, sigma=0.3, epochs=7, augment=True, core="lstm")


# --- rows


def test_every_row_reading_and_preset_is_an_experiment():
    """The paper's rows in its order, among rows that it does not have; a reading changes what it names, alone."""
    assert {table for table, _ in RECIPES} == ROWS.keys() and {preset for _, preset in RECIPES} == PRESETS.keys()
    for table, preset in RECIPES:
        theirs = [row.row for row in paper.ROWS if row.table == table]
        assert [row for row in experiments.ROWS[table] if row in theirs] == theirs
        for e in experiments.experiments(table, preset):
            assert (e.table, e.preset, label_of(table, e.row) != e.row) == (table, preset, True)
            assert (e.protocol is not None) == (table == "table4") and e.config.dataset
        for row in experiments.readings_of(table):
            base, name = row.split("@")
            found, plain = experiment(table, row, preset), experiment(table, base, preset)
            assert changed(found.config, plain.config) <= READINGS[name].changes.keys()
            assert all(getattr(found.config, key) == value for key, value in READINGS[name].changes.items())
            assert label_of(table, row) == f"{label_of(table, base)}; {READINGS[name].label}"


def test_what_a_row_says_holds_at_every_preset(monkeypatch):
    asked = {"core": "relu", "forget_bias": 0.0, "sigma": 0.1, "beta2": 1.0}
    monkeypatch.setitem(ROWS["table2"], "mine", ROWS["table2"]["ram-6"] | asked)
    for preset in PRESETS:
        config = experiment("table2", "mine", preset).config
        assert {name: getattr(config, name) for name in asked} == asked


def test_each_reading_differs_from_its_row_and_from_every_other_at_some_preset():
    for table in ROWS:
        presets = [preset for owner, preset in RECIPES if owner == table]
        seen = {row: tuple(experiment(table, row, preset).config.hash for preset in presets)
                for row in (*ROWS[table], *experiments.readings_of(table))}  # fmt: skip
        assert len(set(seen.values())) == len(seen)


def test_rows_that_are_compared_differ_in_nothing_else():
    """Each contrast of a claim within a table is between two configurations that differ in what the claim is about."""
    for claim, preset in itertools.product(paper.CLAIMS, PRESETS):
        for contrast in claim.contrasts:
            if (contrast.table, preset) not in RECIPES or not contrast.worse:
                continue
            one, other = (experiment(contrast.table, row, preset).config for row in (contrast.worse, contrast.better))
            if "cnn" not in one.model and "fc" not in one.model:
                assert changed(one, other) <= ABOUT[claim.claim], (claim.claim, contrast, preset)


def test_rows_of_table4_differ_in_the_model_alone_and_two_of_them_are_not_defended():
    for preset in PRESETS:
        first, *others = experiments.experiments("table4", preset)
        assert first.config.attack != "none"
        for e in others:
            undefended = {"attack", "attack_steps"} if e.row.endswith("undefended") else set()
            assert changed(first.config, e.config) <= ABOUT["C8"] | undefended, (e.row, preset)
            assert e.config.attack == ("none" if undefended else first.config.attack) and e.protocol == first.protocol
    assert experiment("table4", "vgg16-pgd", "paper").config.width == 1


def test_the_papers_eighteen_glimpses():
    """§5: three glimpses a digit, up to five digits, and three for the end."""
    for preset, row in itertools.product(PRESETS, ("dram", "entropy", "entropy-context")):
        one = experiment("table3", row, preset).config
        assert (one.glimpses, one.patch_size, one.scales) == (18, 12, 2) and (one.width == 1 or preset != "paper")


def test_the_factorial_is_complete_and_only_paper_tells_the_label():
    """Top-down x entropy x context at 6 glimpses are eight different cells. Where the context is not the paper's own
    experiment, its weights do not know the label, and the chooser is paid for finding the digit."""
    for preset in PRESETS:
        if ("table2", preset) in RECIPES:
            cells = [e.config for e in experiments.experiments("table2", preset)]
            cells = [c for c in cells if (c.glimpses, c.patch_size) == (6, 12)]
            assert len(cells) == len({(c.model, c.entropy, c.context) for c in cells}) == 8
            assert {c.context for c in cells} == {"none", "attended" if preset == "paper" else "confidence"}
            paid = {c.chooser_reward for c in cells if c.model == "unified"}
            assert paid == {"outcome" if preset == "paper" else "early"}


def test_settings_by_hand_go_into_the_rows_name_and_label():
    plain = experiment("table2", "ours-6@region-centre", "quick")
    found = experiment("table2", plain.row, "quick", "digits-clutter60-4", {"sigma": "0.30", "epochs": "2"})
    assert found.row == f"{plain.row}+epochs=2,sigma=0.3"
    assert label_of(found.table, found.row) == f"{label_of(plain.table, plain.row)}; epochs=2,sigma=0.3"
    assert changed(found.config, plain.config) == {"sigma", "epochs", "dataset"}


def test_published_records_are_of_the_present_configurations_or_the_book_says_which_are_not():
    """A recipe cannot be edited and its records left behind: `finished` would train all of it again. Runs at strong
    settings are replaced one by one; until then pages count those of the older recipe."""
    published = records.load_records()
    older = set(of_older_recipe(published))
    for r in published:
        place = (r["table"], r["row"], r["preset"], records.dataset_name(r))
        if Config.read(r["config"]) != experiment(*place).config:
            assert r["preset"] == "strong", place
            assert f"{r['table']}/{r['row']}" in older, place
    assert published
