"""Random streams: derived by name, shared by rows, untouched by what a row adds."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uram_lib import experiments, training
from uram_lib.models import RAM, build
from uram_lib.seeding import initialise, stream, stream_seed

NAMES = ["order", "start", "policy", "data", "init"]


def first_draws(*key) -> list[float]:
    return torch.rand(4, generator=stream(*key)).tolist()


@given(seed=st.integers(0, 2**40), name=st.sampled_from(NAMES), epoch=st.integers(0, 1000))
def test_a_stream_depends_on_its_seed_and_name_alone(seed, name, epoch):
    before = first_draws(seed, name, epoch)
    torch.rand(3)  # the global generator has no say
    assert first_draws(seed, name, epoch) == before
    assert 0 <= stream_seed(seed, name, epoch) < 2**63


def test_streams_of_other_names_seeds_and_epochs_all_differ():
    keys = [(seed, name, epoch) for seed in range(5) for name in NAMES for epoch in range(5)]
    assert len({tuple(first_draws(*key)) for key in keys}) == len(keys)


def test_a_stream_is_the_same_on_every_machine_and_version():
    """Written down once: records stay reproducible only while this holds. The constant is coreutils'
    `printf 0/order/1 | b2sum -l 64`, read as little endian and halved."""
    assert stream_seed(0, "order", 1) == int.from_bytes(bytes.fromhex("5234ff2e7dfbb7de"), "little") >> 1


def weights(seed: int, **changes) -> dict[str, torch.Tensor]:
    settings = {"dataset": "digits", "model": "ram", "epochs": 1, "glimpses": 3, "patch_size": 8, "scales": 1}
    model = initialise(build(experiments.Config(**settings | changes), (1, 28, 28), 10), seed)
    return {name: value.clone() for name, value in model.named_parameters()}


def test_initial_weights_repeat_and_differ_between_seeds():
    one, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(one[name], again[name]) for name in one)
    # The ReLU core starts as the identity whatever the seed; everything else is drawn.
    assert {name for name in one if torch.equal(one[name], other[name])} == {"core.from_hidden"}


def test_threads_of_one_process_draw_each_seeds_own_weights():
    """A worker of a cluster may run several groups at once, and PyTorch has one global generator."""
    alone = [weights(seed) for seed in range(12)]
    with ThreadPoolExecutor(4) as threads:
        for seed, found in enumerate(threads.map(weights, range(12))):
            assert all(torch.equal(found[name], value) for name, value in alone[seed].items()), seed


def test_initialising_leaves_the_global_generator_alone():
    model = build(experiments.Config(dataset="digits", model="fc", epochs=1), (1, 28, 28), 10)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    initialise(model, 0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("core", ["relu", "lstm"])
def test_adding_the_context_network_changes_no_other_initial_weight(core):
    plain, richer = weights(3, core=core), weights(3, core=core, context=True)
    added = richer.keys() - plain.keys()
    assert plain.keys() < richer.keys() and all(name.startswith("context_network.") for name in added)
    assert all(torch.equal(plain[name], richer[name]) for name in plain)


def test_more_glimpses_change_no_initial_weight():
    six, seven = weights(3, glimpses=6), weights(3, glimpses=7)
    assert six.keys() == seven.keys() and all(torch.equal(six[name], seven[name]) for name in six)


def seen_in_training(config, seed, dataset) -> tuple[list, list, list]:
    """All images, starts and noises that a real training run feeds its RAM, in order."""
    images, starts, noises = [], [], []

    def look(module, inputs):
        if isinstance(module, RAM) and len(inputs) == 3 and module.training:
            for kept, value in zip((images, starts, noises), inputs, strict=True):
                kept.append(value.clone())

    handle = torch.nn.modules.module.register_module_forward_pre_hook(look)
    try:
        training.train(config, seed, dataset)
    finally:
        handle.remove()
    assert len(images) == 8  # two epochs of four steps
    return images, starts, noises


def same(one: list, other: list) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_rows_with_the_same_seed_share_data_order_starts_and_exploration(few_digits, small_config):
    ram = seen_in_training(small_config(epochs=2), 0, few_digits)
    ours = seen_in_training(small_config(epochs=2, entropy="literal", context=True), 0, few_digits)
    more = seen_in_training(small_config(epochs=2, glimpses=4), 0, few_digits)
    other_seed = seen_in_training(small_config(epochs=2), 1, few_digits)
    assert all(same(a, b) for a, b in zip(ram, ours, strict=True))
    assert same(ram[0], more[0]) and same(ram[1], more[1])  # another number of actions draws other noise
    assert not any(same(a, b) for a, b in zip(ram, other_seed, strict=True))
    assert not torch.equal(ram[0][0], ram[0][4]) and not torch.equal(ram[1][0], ram[1][4])  # epochs differ too
