"""The gallery: its cases, its starts, and what it counts and says, on a small untrained model and by hand."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

from uram_lib import data, evaluation, gallery  # noqa: E402
from uram_lib.gallery import Looked, Reading  # noqa: E402
from uram_lib.glimpse import pixel_to_location  # noqa: E402
from uram_lib.models import RAM, TopDown, Trajectory, Unified  # noqa: E402
from uram_lib.seeding import initialise  # noqa: E402

FRAME = 28


@pytest.fixture(scope="module")
def split() -> data.Split:
    test = data.load("digits-clutter60-4").validation
    return data.Split(test.images[:30], test.labels[:30], test.centres[:30])


@pytest.fixture(scope="module")
def model() -> Unified:
    ram = RAM((1, 60, 60), 10, glimpses=3, patch_size=8, scales=2, sigma=0.15)
    return initialise(Unified(TopDown((1, 60, 60)), ram), 3).eval()


def test_a_reading_is_what_the_model_does_on_that_image(model, split):
    found = gallery.readings(model, split)
    draws = (evaluation.uniform_start(30, evaluation.stream(0, "start", 0)) + 1) / 2
    with torch.no_grad():
        trajectory, outcome = model(split.floats(), draws)
    assert len(found) == 30
    for i in (0, 17, 29):
        assert torch.allclose(found[i].locations, trajectory.locations[i], atol=1e-6)
        assert torch.allclose(found[i].probabilities, trajectory.class_logits[i].softmax(-1), atol=1e-6)
        assert torch.allclose(found[i].values, outcome.values[i, 0], atol=1e-6)
        assert found[i].label == split.labels[i] and torch.equal(found[i].image, split.floats()[i])


def test_cases_are_the_first_of_their_kind():
    believes = lambda k: torch.nn.functional.one_hot(torch.tensor([0, k]), 3).float()  # noqa: E731
    readings = [Reading(None, label, None, None, None, believes(said)) for label, said in
                ((1, 1), (1, 2), (0, 0), (2, 2), (2, 1), (0, 1), (1, 1))]  # fmt: skip
    assert gallery.first_cases(readings, 3) == ([0, 2, 3], [1, 4, 5])
    assert gallery.first_cases(readings[:2], 3) == ([0], [1])


def test_a_picture_shows_all_glimpses_or_the_first_ones(model, split):
    r = gallery.readings(model, split)[0]
    for glimpses, boxes in ((None, [8, 8, 8]), (2, [8, 16])):
        figure = gallery.draw(r, model.ram, FRAME, "a title", glimpses)
        _, path, seen, belief = figure.axes
        assert sorted(box.get_width() for box in path.patches if box.get_width() != FRAME) == boxes
        assert len(seen.images) == 2 * (glimpses or 3) and len(seen.get_xticks()) == len(belief.get_xticks()) == 3
        assert belief.images[0].get_array().shape == (10, glimpses or 3)
        plt.close(figure)


def test_starts_share_draws_and_lie_where_they_are_called(model, split):
    looked = gallery.from_starts(model, split, 2)
    assert list(looked) == list(gallery.STARTS) and looked["anywhere"].wrong.shape == (30, 3)
    away = {name: found.distance_px[:, 0] for name, found in looked.items()}
    np.testing.assert_allclose(away["digit's centre"], 0, atol=1e-4)
    np.testing.assert_allclose(away["image centre"], (split.centres - 30).norm(dim=-1), atol=1e-4)
    draws = [evaluation.uniform_start(30, evaluation.stream(0, "start", k)) for k in range(2)]
    anywhere = [(30 * (draw + 1) - split.centres).norm(dim=-1) for draw in draws]
    np.testing.assert_allclose(away["anywhere"], sum(anywhere) / 2, atol=1e-4)
    own = evaluation.evaluate(model, split, 2)
    assert 100 * looked["where top-down says"].wrong[:, -1].mean() == pytest.approx(own.error, abs=1e-3)
    np.testing.assert_allclose(looked["where top-down says"].distance_px.mean(0), own.glimpse_distance_px, atol=1e-3)


def test_starts_by_quadrant_are_told_from_the_object(model, split):
    """Against rollouts started by hand, corner by corner; each canvas is chosen for in exactly one quadrant."""
    found = gallery.by_quadrant(model, split, 1)
    draw = (evaluation.uniform_start(30, evaluation.stream(0, "start", 0)) + 1) / 2
    right, below = (split.centres >= 30).long().unbind(1)
    with torch.no_grad():
        values = model.topdown(split.floats()).values[:, 0]
        for name, (across, down) in zip(found, ((0, 0), (1, 0), (0, 1), (1, 1)), strict=True):
            column, row = (right + across) % 2, (below + down) % 2
            start = torch.stack((column, row), 1) - 1 + draw
            said = model.ram(split.floats(), start).class_logits[:, -1].argmax(-1)
            assert np.array_equal(found[name].wrong, (said != split.labels).double().numpy())
            np.testing.assert_allclose(found[name].value, values[torch.arange(30), 2 * row + column], atol=1e-6)
    assert (sum(at.chosen.astype(int) for at in found.values()) == 1).all()


def test_the_sentence_on_quadrants_follows_the_numbers():
    def found(wrong, values, chosen):
        """100 canvases, of which the first so many percent are wrong, or chosen for there."""
        first = lambda share: (np.arange(100) < 100 * share).astype(float)  # noqa: E731
        parts = zip(gallery.QUADRANTS, wrong, values, chosen, strict=True)
        return {name: gallery.Quadrant(first(w), np.full(100, v), first(c)) for name, w, v, c in parts}

    text = gallery.quadrants_sentence(found((0.4, 0.3, 0.2, 0.1), (0.6, 0.7, 0.8, 0.9), (0.02, 0.08, 0.2, 0.7)))
    assert "60.0 % (the digit's own), 70.0 % (beside it), 80.0 % (above or below it) and 90.0 % (opposite)" in text
    assert "Mean Q is highest for *opposite*, and chosen most often is *opposite*, on 70 % of" in text
    assert text.endswith("**The start that pays is not where the digit is.**")
    text = gallery.quadrants_sentence(found((0.1, 0.3, 0.2, 0.2), (0.8, 0.7, 0.6, 0.9), (0.7, 0.1, 0.1, 0.1)))
    assert "highest for *opposite*" in text and text.endswith("is *the digit's own*, on 70 % of the canvases.")


def test_changes_are_the_own_start_s_error_minus_the_other_s():
    wrong = lambda *last: np.array([[1.0, value] for value in last])  # noqa: E731
    looked = {
        "own": Looked(wrong(0, 0, 0.2, 1), np.ones((4, 2))),
        "other": Looked(wrong(1, 0, 0.4, 1), np.ones((4, 2))),
    }
    assert gallery.change(looked, "other").mean == pytest.approx(-30)
    lines = gallery.by_glimpse(looked)
    values = lines.set_index(["row", "quantity"])["value"]
    assert values["other", "error_percent, glimpse 1"] == pytest.approx(60)
    assert values["own", "error_percent, glimpse 0"] == 100 and values["own", "glimpse_distance_px, glimpse 1"] == 1


def test_what_the_glimpses_see_is_counted_in_squares(split):
    """Four objects at (50, 50) of 100 px; glimpses 0, 5, 13 and 40 px to the right of them."""
    images = torch.zeros(4, 1, 100, 100, dtype=torch.uint8)
    centres = torch.full((4, 2), 50.0)
    pixels = centres + torch.tensor([0.0, 5.0, 13.0, 40.0])[:, None] * torch.tensor([1.0, 0.0])
    locations = pixel_to_location(pixels, 100, 100)[:, None]
    trajectory = Trajectory(locations, *[None] * 5)
    ram = RAM((1, 100, 100), 10, glimpses=1, patch_size=12, scales=4, sigma=0.15)
    lines = gallery.looks(trajectory, data.Split(images, None, centres), ram, FRAME)
    truth = {"distance_px": 14.5, "in_frame": 75, "box_12": 50, "box_24": 50, "box_48": 75, "box_96": 100}
    assert lines.iloc[0].to_dict() == pytest.approx(truth)


@pytest.mark.parametrize(("in_frame", "said"), [(14.0, "mostly not where the digit is"), (80.0, "mostly where the")])
def test_the_sentence_on_looking_follows_the_numbers(in_frame, said):
    lines = pd.DataFrame({"distance_px": [39.0, 37.6], "in_frame": [12.0, in_frame], "box_12": [3.0, 4.0],
                          "box_96": [70.0, 78.0]})  # fmt: skip
    text = gallery.looking_sentence(lines)
    assert f"**where the model looks is {said}" in text and "starts" not in text
    assert "lies 39 px from" in text and "the last glimpse 38 px" in text and f"in {in_frame:.0f} % of" in text
    assert "(12 px wide) holds the digit's centre in 4 %" in text and "(96 px) in 78 %" in text


def test_the_sentence_on_choosing_counts_runs_and_quadrants():
    chose = lambda inside, *shares: {  # noqa: E731
        "metrics": {"top_down": {"action_histogram": [list(shares)], "in_region_percent": inside}}
    }
    text = gallery.choosing_sentence([
        chose(60.2, 0.5, 0.3, 0.16, 0.04), chose(44.0, 0, 0.96, 0, 0.04), chose(50.0, 0.25, 0.25, 0.4, 0.1),
    ])  # fmt: skip
    assert text.startswith("Over 3 runs, the quadrant that a run chooses most often takes 40 to 96 % of the test")
    assert "1 quadrant in 1 run, 3 quadrants in 1 run and 4 quadrants in 1 run." in text
    assert "lies in the chosen quadrant in 44 to 60 % of the canvases; a blind choice would give 25 %." in text
    assert "away" not in text
    text = gallery.choosing_sentence([chose(2.4, 1, 0, 0, 0), chose(13.0, 1, 0, 0, 0)])
    assert text.endswith("In 1 run it is less than half of that: **these start away from the digit.**")
