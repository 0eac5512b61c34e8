"""The live explorer in a real browser without a network: it computes what PyTorch computes, and a reader with a mouse,
a keyboard or a finger can change the canvas."""

import json

import numpy as np
import pytest
import torch
from browser import PHONE, WIDE, browser, built, opened  # noqa: F401
from uram_book import live

import uram_lib
from uram_lib import data
from uram_lib.common import ROOT
from uram_lib.config import Config
from uram_lib.models import Unified, build

AGREEMENT = 1e-4
SCRIPT = (ROOT / "book" / "_static" / "uram.js").read_text(encoding="utf-8")
STATE = """() => {
  const { scene, views } = window.uramExplorer;
  return { image: [...scene.image], draw: scene.draw, x: scene.x, y: scene.y, label: scene.digit?.label ?? null,
    results: views.map(({ result }) => ({ action: result.action, values: result.values,
      locations: result.glimpses.map((g) => g.location), logits: result.glimpses.map((g) => g.logits) })) };
}"""


def assert_agreement(model, image: torch.Tensor, draw: list[float], found: dict) -> None:
    """found: what `Uram.run` returned for one image (1, 1, H, W) in double precision."""
    within = torch.tensor([draw], dtype=torch.float64)
    with torch.no_grad():
        if isinstance(model, Unified):
            trajectory, outcome = model.both(image, {"start": 2 * within - 1})
            assert found["action"] == outcome.actions.item()
            np.testing.assert_allclose(found["values"], outcome.values[0, 0], atol=AGREEMENT)
        else:
            trajectory = model(image, 2 * within - 1)
    np.testing.assert_allclose(found["locations"], trajectory.locations[0], atol=AGREEMENT)
    np.testing.assert_allclose(found["logits"], trajectory.class_logits[0], atol=AGREEMENT)


@pytest.fixture(scope="module")
def models():
    return [uram_lib.load("table2", row, live.PRESET).double() for row in live.ROWS]


@pytest.fixture
def explorer(opened, built):
    """explorer(width): the landing page opened as a file; nothing but files was asked for, and nothing was said."""
    pages = []

    def load(width: int = WIDE, **options):
        page = opened((built / "book" / "intro.html").as_uri(), width, **options)
        page.wait_for_function("() => window.uramExplorer")
        pages.append(page)
        return page

    yield load
    for page in pages:
        assert page.said == [] and not [one for one in page.asked if not one.startswith(("file:", "data:"))]


def compare(page, models) -> dict:
    state = page.evaluate(STATE)
    image = torch.tensor(state["image"], dtype=torch.float64).reshape(1, 1, 100, 100)
    for model, found in zip(models, state["results"], strict=True):
        assert_agreement(model, image, state["draw"], found)
    return state


def drag(page, start: tuple[float, float], *points: tuple[float, float]) -> None:
    """With the mouse over the first canvas, in its pixels."""
    box = page.locator(".live canvas").first.bounding_box()
    place = lambda x, y: (box["x"] + x / 100 * box["width"], box["y"] + y / 100 * box["height"])  # noqa: E731
    page.mouse.move(*place(*start))
    page.mouse.down()
    for point in points:
        page.mouse.move(*place(*point), steps=4)
    page.mouse.up()


def test_it_agrees_with_pytorch_on_canvases_nobody_has_seen(explorer, models):
    """The first scene, others, one whose digit was dragged, and a drawing."""
    page = explorer()
    page.locator(".live canvas").first.scroll_into_view_if_needed()
    first = compare(page, models)
    assert first["label"] is not None
    page.click("#live-next")
    page.click("#live-clutter")
    second = compare(page, models)
    assert second["image"] != first["image"]
    middle = (second["x"] + 14, second["y"] + 14)
    drag(page, middle, (50, 50))
    moved = compare(page, models)
    assert abs(moved["x"] - 36) <= 1 and abs(moved["y"] - 36) <= 1
    page.click("#live-erase")
    page.check("input[value=draw]")
    erased = page.evaluate(STATE)
    drag(page, (40, 40), (55, 40), (48, 58))
    drawn = compare(page, models)
    assert drawn["label"] is erased["label"] is None
    image, before = (np.reshape(one["image"], (100, 100)) for one in (drawn, erased))
    assert (image[40, 41:55] > 0.5).all() and image[57, 48] > 0.5  # the line lies where the mouse was,
    added = image - before
    assert added.min() >= 0 and added[35:62, 35:59].sum() == pytest.approx(added.sum()) != 0  # and nowhere else
    page.click("#live-next")
    assert page.evaluate(STATE)["label"] is not None and page.is_checked("input[value=move]")


def test_it_runs_by_itself_from_the_first_frame(explorer):
    page = explorer()
    shown = lambda: page.evaluate("window.uramExplorer.clock.shown")  # noqa: E731
    assert page.locator(".live-answer").first.inner_text().startswith("glimpse ")
    before = shown()
    page.wait_for_function(f"() => window.uramExplorer.clock.shown > {before}", timeout=5_000)
    page.click("#live-pause")
    assert page.inner_text("#live-pause") == "Play"
    still = shown()
    page.wait_for_timeout(1_500)
    assert shown() == still


def test_a_reader_who_wants_no_motion_sees_the_whole_path(explorer):
    page = explorer(reduced_motion="reduce")
    shown, steps = page.evaluate("[uramExplorer.clock.shown, uramExplorer.views[0].model.config.glimpses]")
    assert shown == steps and page.inner_text("#live-status")


def test_arrow_keys_move_the_digit(explorer, models):
    page = explorer()
    page.click("#live-next")
    before = page.evaluate(STATE)
    page.locator(".live canvas").first.focus()
    page.keyboard.press("ArrowLeft" if before["x"] > 36 else "ArrowRight")
    after = compare(page, models)
    assert abs(after["x"] - before["x"]) == 4


def test_a_finger_on_a_phone_drags_the_digit(explorer):
    page = explorer(PHONE, has_touch=True, is_mobile=True)
    page.click("#live-next")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE
    canvas = page.locator(".live canvas").nth(1)
    canvas.scroll_into_view_if_needed()
    before, box = page.evaluate(STATE), canvas.bounding_box()
    middle = [box["x"] + (before["x"] + 14) / 100 * box["width"], box["y"] + (before["y"] + 14) / 100 * box["height"]]
    target = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
    touch = page.context.new_cdp_session(page)
    for kind, points in (("Start", [middle]), ("Move", [target]), ("End", [])):
        places = [{"x": x, "y": y} for x, y in points]
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": places})
    after = page.evaluate(STATE)
    assert abs(after["x"] - 36) <= 2 and abs(after["y"] - 36) <= 2


MADE = {"epochs": 1, "glimpses": 5, "patch_size": 7, "scales": 3}


@pytest.mark.parametrize("changes", [
    {"model": "unified", "core": "relu"}, {"model": "unified", "core": "lstm", "region_start": "centre"},
    {"model": "ram", "core": "lstm", "bounded_mean": False},
    {"model": "ram", "core": "relu", "scales": 1, "standardise": False},
], ids=str)  # fmt: skip
def test_the_script_agrees_with_pytorch_on_models_of_every_kind(opened, changes, generator):
    """Untrained networks with wide weights, so that locations reach the borders and all gates of an LSTM matter."""
    config = Config("clutter60-4", **MADE | changes)
    model = build(config, *data.shape_of(config.dataset)).initialise(3).eval()
    ram = getattr(model, "ram", model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
        ram.location_network.weight.mul_(8)
        ram.patch_mean.uniform_(0, 0.3, generator=generator)
        ram.patch_std.uniform_(0.5, 1.5, generator=generator)
    images = torch.rand(4, 1, 60, 60, generator=generator, dtype=torch.float64) ** 4
    draws = [[0, 0], [0.999, 0.999], [0.2, 0.7], [0.51, 0.03]]
    page = opened("about:blank")
    page.add_script_tag(content=SCRIPT)
    found = page.evaluate(
        """([exported, images, draws]) => images.map((image, i) => {
          const { glimpses, ...others } = Uram.run(Uram.load(exported), image, draws[i]);
          return { ...others, locations: glimpses.map((g) => g.location), logits: glimpses.map((g) => g.logits) };
        })""",
        [json.loads(json.dumps(live.export(model, config))), images.flatten(1).tolist(), draws],
    )
    for image, draw, one in zip(images, draws, found, strict=True):
        assert_agreement(model.double(), image[None], draw, one)
