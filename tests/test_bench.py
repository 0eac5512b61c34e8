"""`make bench`: what it calls the limit are the matrix products of a training step, and its report is whole."""

import json

import pytest
import torch
from uram_book import bench

from uram_lib.glimpse import GlimpseSensor


def test_glimpse_cost_does_not_grow_with_the_canvas():
    """Claim C9 without a clock: the elements that a glimpse touches are the same on any canvas."""
    from torch.profiler import ProfilerActivity, profile

    def operations(side: int) -> list[str]:
        sensor = GlimpseSensor(12, 4)
        pyramid = sensor.pyramid(torch.rand(2, 1, side, side))
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            patch = sensor(pyramid, torch.zeros(2, 2))
        assert patch.shape == (2, 4, 1, 12, 12)
        return sorted(e.name for e in profiled.events())

    assert operations(60) == operations(1000)


def test_report_is_whole_json(tmp_path, monkeypatch):
    monkeypatch.setenv("URAM_LOCAL", str(tmp_path))
    monkeypatch.setattr(bench, "REPEATS", 1)
    monkeypatch.setattr(bench, "CANVASES", (60, 100, 120))
    assert bench.main([]) == 0
    report = json.loads(next(tmp_path.rglob("bench.json")).read_text(encoding="utf-8"))
    assert [line["side_px"] for line in report["canvas"]] == [60, 100, 120]
    assert {s["shape"] for s in report["shapes"]} == set(bench.SHAPES)


def test_a_mistaken_option_shows_the_usage(capsys):
    with pytest.raises(SystemExit):
        bench.main(["--threads", "0"])
    assert "error:" in capsys.readouterr().err
