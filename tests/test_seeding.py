"""Random streams: derived by name, shared by rows, untouched by what a row adds."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from drawing import drawn, streams
from hypothesis import given
from hypothesis import strategies as st

from uram_lib import training
from uram_lib.config import Config
from uram_lib.models import RAM, build
from uram_lib.seeding import stream, stream_seed


def first_draws(*key: object) -> list[float]:
    return torch.rand(4, generator=stream(*key)).tolist()


@given(seed=st.integers(0, 2**40), name=st.sampled_from(training.STREAMS), epoch=st.integers(0, 1000))
def test_a_stream_depends_on_its_seed_and_name_alone(seed, name, epoch):
    before = first_draws(seed, name, epoch)
    torch.rand(3)  # the global generator has no say
    assert first_draws(seed, name, epoch) == before
    others = (seed + 1, name, epoch), (seed, name, epoch + 1), (seed, name), (seed, name + "s", epoch)
    assert all(first_draws(*key) != before for key in others)
    assert 0 <= stream_seed(seed, name, epoch) < 2**63


def test_a_stream_is_the_same_on_every_machine_and_version():
    """Written down once: records stay reproducible only while this holds. The constant is coreutils'
    `printf 0/order/1 | b2sum -l 64`, read as little endian and halved."""
    assert stream_seed(0, "order", 1) == int.from_bytes(bytes.fromhex("5234ff2e7dfbb7de"), "little") >> 1


PLAIN = Config("digits", "ram", 2, glimpses=3, patch_size=8, scales=1, batch_size=50)
NUMBERS = {"model": "dram", "glimpses": 6, "patch_size": 12, "reward": "whole"}


def weights(seed: int, **changes) -> dict[str, torch.Tensor]:
    model = build(dataclasses.replace(PLAIN, **changes), (1, 28, 28), 10).initialise(seed)
    return {name: value.clone() for name, value in model.named_parameters()}


def test_each_seed_draws_its_own_weights_in_threads_too_and_leaves_the_global_generator_alone():
    """A worker of a cluster may run several runs at once, and PyTorch has one global generator."""
    model, before = build(PLAIN, (1, 28, 28), 10), torch.get_rng_state()
    model.initialise(0)
    assert torch.equal(torch.get_rng_state(), before)
    alone = [weights(seed) for seed in range(12)]
    # The ReLU core starts as the identity whatever the seed; everything else is drawn.
    assert {name for name in alone[0] if torch.equal(alone[0][name], alone[1][name])} == {"core.from_hidden"}
    with ThreadPoolExecutor(4) as threads:
        for seed, found in enumerate(threads.map(weights, range(12))):
            assert all(torch.equal(found[name], value) for name, value in alone[seed].items()), seed


@pytest.mark.parametrize("plain, richer, added", [
    ({}, {"context": "attended"}, "context_network."),
    ({"glimpses": 6}, {"glimpses": 7}, ""),
    ({}, {"model": "unified"}, "topdown."),
    (NUMBERS, NUMBERS | {"context": "detached"}, "context_network."),
])  # fmt: skip
def test_what_a_row_adds_changes_no_other_initial_weight(plain, richer, added):
    """Rows are paired by seed: what two models share must be equal."""
    one = weights(3, **plain)
    other = {name.removeprefix("ram."): value for name, value in weights(3, **richer).items()}
    assert all(name.startswith(added) for name in other.keys() - one.keys()) and one.keys() <= other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_unified_model_and_its_RAM_draw_the_same():
    ram, unified = (build(dataclasses.replace(PLAIN, model=name), (1, 28, 28), 10) for name in ("ram", "unified"))
    alone, both = drawn(ram, 8), drawn(unified, 8)
    assert both.keys() - alone.keys() == {"explore", "epsilon"} and (both["epsilon"] == 0.5).all()
    assert all(torch.equal(alone[name], both[name]) for name in alone)
    centred = unified.draws(8, {name: streams()[name] for name in ("start", "policy")})  # as in testing
    assert centred.keys() == alone.keys()


def seen_in_training(config, seed, dataset) -> list[tuple]:
    """The images, starts and noise that each step of a real training run feeds its RAM."""
    seen = []

    def look(module, given):
        if isinstance(module, RAM) and module.training:
            seen.append(tuple(value.clone() for value in given[:3]))

    with torch.nn.modules.module.register_module_forward_pre_hook(look):
        training.train(config, seed, dataset)
    assert len(seen) == 8  # two epochs of four steps
    return seen


def test_rows_with_the_same_seed_share_data_order_starts_and_exploration(few_digits):
    ram = seen_in_training(PLAIN, 0, few_digits)
    rich = dataclasses.replace(PLAIN, entropy="literal", context="attended", reward="probability", sigma=0.3)
    ours, other = seen_in_training(rich, 0, few_digits), seen_in_training(PLAIN, 1, few_digits)
    more = seen_in_training(dataclasses.replace(PLAIN, glimpses=4), 0, few_digits)
    for one, same, longer, different in zip(ram, ours, more, other, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(one[:2], longer[:2], strict=True))  # more actions draw other noise
        assert not any(torch.equal(a, b) for a, b in zip(one, different, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(ram[0], ram[4], strict=True))  # epochs differ too
