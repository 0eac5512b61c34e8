"""What `make bench` calls the limit must be the matrix products of a training step, all of them and no more."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from uram_lib import bench


def flops(act) -> int:
    with FlopCounterMode(display=False) as counter:
        act()
    return counter.get_total_flops()


@pytest.mark.parametrize("shape", list(bench.SHAPES))
def test_limit_counts_the_same_operations_as_a_training_step(shape):
    """PyTorch's own counter sees the products of the real step and those of the limit; they must agree."""
    step = bench.Step(shape)
    step()
    products = bench.matrix_products(step.replicas.models[0], step.config)
    in_step, in_limit = flops(step), flops(products)
    # The step skips the gradient of what has none: the black initial state, H_0.
    assert in_limit == pytest.approx(in_step, rel=0.02)


def test_glimpse_cost_does_not_grow_with_the_canvas():
    """Claim C9 without a clock: the elements that a glimpse touches are the same on any canvas."""
    from torch.profiler import ProfilerActivity, profile

    def operations(side: int) -> list[tuple[str, str]]:
        sensor = bench.GlimpseSensor(12, 4)
        pyramid = sensor.pyramid(torch.rand(2, 1, side, side))
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
            patch = sensor(pyramid, torch.zeros(2, 2))
        assert patch.shape == (2, 4, 1, 12, 12)
        return sorted((e.name, str(e.input_shapes[1:])) for e in profiled.events() if e.name != "aten::grid_sampler_2d")

    assert [name for name, _ in operations(60)] == [name for name, _ in operations(1000)]


def test_report_is_whole_json(tmp_path, monkeypatch):
    monkeypatch.setenv("URAM_LOCAL", str(tmp_path))
    monkeypatch.setattr(bench, "REPEATS", 1)
    monkeypatch.setattr(bench, "CANVASES", (28, 60))
    monkeypatch.setattr(bench, "EPOCH_IMAGES", 500)
    monkeypatch.setattr(
        bench, "in_turn", lambda acts, *_, **__: {name: [bench.seconds(act, 0)] for name, act in acts.items()}
    )
    measure_processes = bench.measure_processes
    monkeypatch.setattr(bench, "measure_processes", lambda name: measure_processes(name, 0.1, rounds=1))
    assert bench.main([]) == 0
    report = json.loads((tmp_path / "bench.json").read_text())
    assert {s["shape"] for s in report["shapes"]} == set(bench.SHAPES)
    assert all(s["images_per_second"] > 0 and 0 < s["ratio"] for s in report["shapes"])
    assert all(0 < p["kept_by_each_of_two"] and set(bench.SPEED_UPS) < set(p["without"]) for p in report["processes"])
    assert [line["seeds"] for line in report["together"]] == [1, 4]
    assert [line["side_px"] for line in report["canvas"]] == [28, 60]
    assert report["machine"]["threads"] == 1


def test_a_mistaken_option_is_one_line(capsys):
    assert bench.main(["--threads", "0"]) == 1
    assert capsys.readouterr().err == "uram: error: threads must be a whole number from 1 on, got 0\n"
