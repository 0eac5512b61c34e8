"""`make bench`: what it calls the limit are the matrix products of a training step, and its report is whole."""

import json
import types

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from uram_book import bench

from uram_lib.glimpse import GlimpseSensor


class Written(TorchDispatchMode):
    """Counts the values that operations write."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **kwargs or {})
        self.count += found.numel() if isinstance(found, torch.Tensor) else 0
        return found


def test_glimpse_cost_does_not_grow_with_the_canvas():
    """Claim C9 without a clock: a glimpse writes as many values on any canvas; the pyramid's grow with its pixels."""
    sensor, pyramids, glimpses = GlimpseSensor(12, 4), [], []
    for side in (60, 240):
        with Written() as counted:
            pyramid = sensor.pyramid(torch.rand(2, 1, side, side))
        pyramids.append(counted.count)
        with Written() as counted:
            patch = sensor(pyramid, torch.zeros(2, 2))
        glimpses.append(counted.count)
        assert patch.shape == (2, 4, 1, 12, 12)
    assert glimpses[0] == glimpses[1] >= patch.numel() and pyramids[1] > 8 * pyramids[0] > 0


def test_the_limit_is_the_matrix_products_of_a_step(monkeypatch, local):
    """A clock that counts multiplications in place of seconds. A step has all the products that it is compared with
    but for a few gradients that nothing asks for, as that of the patches."""

    class Clock:
        def __init__(self, _, globals):
            self.act = globals["act"]

        def blocked_autorange(self, min_run_time):
            with FlopCounterMode(display=False) as counter:
                self.act()
            return types.SimpleNamespace(mean=counter.get_total_flops() + 1)

    monkeypatch.setattr(bench, "Timer", Clock)
    monkeypatch.setattr(bench, "REPEATS", 1)
    monkeypatch.setattr(bench, "CANVASES", ())
    assert bench.main([]) == 0
    report = json.loads((local / "bench.json").read_text(encoding="utf-8"))
    assert all(1 <= shape["ratio"] < 1.15 for shape in report["shapes"])  # without one of the three kinds it is 0.7


def test_report_is_whole_json(local, monkeypatch):
    monkeypatch.setattr(bench, "REPEATS", 1)
    monkeypatch.setattr(bench, "CANVASES", (60, 480))
    assert bench.main([]) == 0
    report = json.loads((local / "bench.json").read_text(encoding="utf-8"))
    assert {s["shape"] for s in report["shapes"]} == set(bench.SHAPES) and report["machine"]["threads"] == 1
    for shape in report["shapes"]:
        low, high = shape["ratio_range"]
        assert 0 < low <= shape["ratio"] <= high < 1.2 and shape["images_per_second"] > 0
    small, large = report["canvas"]
    assert (small["side_px"], large["side_px"]) == (60, 480)
    assert large["pyramid_ms"] > 4 * small["pyramid_ms"] > 0  # 64 times the pixels
    assert all(0 < line["glimpse_ms"] < line["unified_ms"] for line in report["canvas"])
