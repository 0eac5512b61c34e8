"""The live page in a real browser without a network, opened as a file: it computes what PyTorch computes, and a reader
with a mouse, a keyboard or a phone can use it. And the choice of its model and the words about it."""

import dataclasses
import json
from pathlib import Path

import chromium
import numpy as np
import pytest
import torch

from uram_lib import UramError, checkpoints, data, live
from uram_lib.experiments import Config
from uram_lib.models import build
from uram_lib.paths import ROOT
from uram_lib.seeding import initialise

AGREEMENT = 1e-4
IMAGES = 20
SCRIPT = ROOT / "book" / "_static" / "uram.js"
# The book's theme says this on every first visit.
KNOWN = "Got invalid theme mode"


@pytest.fixture
def opened(tab, built):
    """opened(width, theme): the live page, loaded as a file. In the end nothing but files was asked for, and the
    console said nothing of an error."""
    tab.errors.clear()
    tab.requests.clear()

    def load(width: int = 1280, theme: str = "light") -> chromium.Page:
        tab.open((built / "book" / "live.html").as_uri(), width, theme=theme)
        return tab

    yield load
    assert [line for line in tab.errors if KNOWN not in line] == []
    assert tab.requests and not [address for address in tab.requests if not address.startswith(("file:", "data:"))]


@pytest.fixture(scope="module")
def published():
    """The model that the page shows, in double precision, and its configuration."""
    found = live.find()
    if found is None:
        pytest.skip("no checkpoint of the unified model is published")
    model, config = live.load(*found)
    return model.double(), config


@pytest.fixture(scope="module")
def test_images(published):
    """The first canvases of the fixed test set: (N, 1, H, W) in [0, 1], in double precision, and their bytes."""
    split = data.load(data.available(published[1].dataset)).load_test()
    return split.images[: live.IMAGES].double() / 255, split


def assert_agreement(found: list[dict], model, images: torch.Tensor, within: torch.Tensor) -> None:
    """found: what `Uram.run` returned, image by image."""
    with torch.no_grad():
        trajectory, outcome = model(images, within)
    close = lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=0, atol=AGREEMENT)  # noqa: E731
    assert [one["action"] for one in found] == outcome.actions[:, 0].tolist()
    close([one["values"] for one in found], outcome.values[:, 0])
    close([one["start"] for one in found], outcome.start)
    close([[glimpse["location"] for glimpse in one["glimpses"]] for one in found], trajectory.locations)
    close([[glimpse["logits"] for glimpse in one["glimpses"]] for one in found], trajectory.class_logits)


def test_the_page_agrees_with_pytorch_on_its_test_images(opened, published, test_images, generator):
    model, config = published
    images, split = test_images
    page = opened()
    assert page.evaluate("uramImages.labels") == split.labels[: live.IMAGES].tolist()
    within = torch.rand(IMAGES, 2, generator=generator, dtype=torch.float64)
    side = images.shape[-1]
    found = page.evaluate(f"""
        const bytes = Uint8Array.from(atob(uramImages.data), (letter) => letter.charCodeAt(0));
        const model = Uram.load(uramModel);
        {within.tolist()}.map((within, i) => {{
          const image = Float64Array.from(bytes.subarray(i * {side**2}, (i + 1) * {side**2}), (value) => value / 255);
          const {{ glimpses, ...others }} = Uram.run(model, image, within);
          return {{ ...others, glimpses: glimpses.map(({{ location, logits }}) => ({{ location, logits }})) }};
        }})
    """)
    assert len(found) == IMAGES and len(found[0]["glimpses"]) == config.glimpses
    assert_agreement(found, model, images[:IMAGES], within)


UNIFIED = {"model": "unified", "epochs": 1, "glimpses": 5, "patch_size": 7, "scales": 3}


@pytest.mark.parametrize(
    "changes",
    [
        {"core": "relu"},
        {"core": "lstm"},
        {"core": "lstm", "q_hidden": 9, "region_start": "centre"},
        {"core": "relu", "scales": 1, "standardise": False, "context": True},
    ],
    ids=str,
)
def test_the_script_agrees_with_pytorch_on_models_of_every_kind(tab, changes, generator):
    """Untrained networks with wide weights, so that locations reach the borders and all gates of an LSTM matter."""
    config = Config("clutter60-4", **UNIFIED | changes)
    model = initialise(build(config, *data.shape_of(config.dataset)), 3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
        model.ram.location_network.weight.mul_(8)
        model.ram.patch_mean.uniform_(0, 0.3, generator=generator)
        model.ram.patch_std.uniform_(0.5, 1.5, generator=generator)
    images = torch.rand(4, 1, 60, 60, generator=generator, dtype=torch.float64) ** 4
    within = torch.tensor([[0, 0], [0.999, 0.999], [0.2, 0.7], [0.51, 0.03]], dtype=torch.float64)
    tab.open("about:blank")
    found = json.loads(
        tab.evaluate(f"""(() => {{
        {SCRIPT.read_text()}
        {live.model_script(model, config)}
        const model = Uram.load(uramModel);
        const images = {images.flatten(1).tolist()};
        return JSON.stringify({within.tolist()}.map((within, i) => Uram.run(model, images[i], within)));
    }})()""")
    )
    assert_agreement(found, model.double(), images, within)
    assert max(abs(x) for one in found for glimpse in one["glimpses"] for x in glimpse["location"]) > 0.9


def click(page: chromium.Page, name: str) -> None:
    """Click an element of the live page in its middle."""
    x, y = page.evaluate(
        f"(() => {{ const e = document.getElementById('live-{name}') ?? document.querySelector('{name}');"
        " e.scrollIntoView({ block: 'center', behavior: 'instant' }); const r = e.getBoundingClientRect();"
        " return [r.left + r.width / 2, r.top + r.height / 2]; })()"
    )
    page.mouse("Pressed", x, y)
    page.mouse("Released", x, y)


def text(page: chromium.Page, name: str) -> str:
    return page.evaluate(f"document.getElementById('live-{name}').textContent")


def test_steps_show_the_choice_and_then_every_glimpse(opened, published, test_images):
    """On an image that is not the first, with the start in the quadrant's middle."""
    model, config = published
    page = opened()
    page.evaluate("Math.random = () => 0.5")
    click(page, "#live-test label:nth-child(4)")
    assert text(page, "status").startswith(f"Test image 4, a {test_images[1].labels[3]}.")
    assert text(page, "values") == ""
    with torch.no_grad():
        trajectory, outcome = model(test_images[0][3:4], 0.5)
    click(page, "step")
    region = ["top left", "top right", "bottom left", "bottom right"][outcome.actions.item()]
    assert f"chooses the {region} quadrant" in text(page, "status")
    assert text(page, "values") == "".join(f"Q {value:.3f}" for value in outcome.values[0, 0])
    probabilities = 100 * trajectory.class_logits[0].softmax(-1)  # (T, K)
    for t in range(config.glimpses):
        click(page, "step")
        answer = probabilities[t].argmax().item()
        assert f"Glimpse {t + 1} of {config.glimpses}" in text(page, "status")
        assert f": {answer} with {probabilities[t, answer]:.0f} %" in text(page, "status")
    assert f"The answer is {answer}" in text(page, "status")
    shown = page.evaluate("[...document.querySelectorAll('#live-body tr')].map((row) => "
                          "[...row.querySelectorAll('td')].map((cell) => Number(cell.textContent)))")  # fmt: skip
    np.testing.assert_allclose(np.array(shown).T, probabilities, atol=0.51)
    places = (trajectory.locations[0] + 1) * 50
    label = page.evaluate("document.getElementById('live-stage').ariaLabel")
    assert all(f"glimpse {t + 1} at {x:.0f}, {y:.0f} px" in label for t, (x, y) in enumerate(places.tolist()))
    assert page.evaluate("document.getElementById('live-step').disabled")
    click(page, "reset")
    assert text(page, "body").replace(" ", "") == "0123456789"


def stage(page: chromium.Page) -> np.ndarray:
    """The canvas that the model sees, (100, 100) in [0, 1], read from the screen; nothing may be drawn over it yet."""
    return np.array(
        page.evaluate("""(() => {
        const canvas = document.getElementById("live-stage");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const unit = canvas.width / 100;
        return Array.from({ length: 100 }, (_, y) => Array.from({ length: 100 }, (_, x) =>
          data[4 * (Math.floor((y + 0.5) * unit) * canvas.width + Math.floor((x + 0.5) * unit))] / 255));
    })()""")
    )


def set_slider(page: chromium.Page, name: str, value: int) -> None:
    page.evaluate(f"(() => {{ const s = document.getElementById('live-{name}'); s.value = {value};"
                  " s.dispatchEvent(new Event('input')); })()")  # fmt: skip


def test_a_digit_drawn_with_the_mouse_is_scaled_centred_and_read(opened):
    page = opened()
    click(page, "[name=live-source][value=drawn]")
    for name, value in {"pieces": 0, "x": 60, "y": 5}.items():
        set_slider(page, name, value)
    assert stage(page).max() == 0 and text(page, "status").startswith("Nothing is drawn yet")
    left, top, width = page.evaluate(
        "(() => { const pad = document.getElementById('live-pad'); pad.scrollIntoView({ block: 'center',"
        " behavior: 'instant' }); const r = pad.getBoundingClientRect(); return [r.left, r.top, r.width]; })()"
    )
    line = [(0.1, 0.1), (0.3, 0.1), (0.3, 0.35), (0.2, 0.7)]  # a small 7 in a corner of the pad: half as wide as high
    page.mouse("Pressed", left + line[0][0] * width, top + line[0][1] * width)
    for x, y in line[1:]:
        page.mouse("Moved", left + x * width, top + y * width)
    page.mouse("Released", left + x * width, top + y * width)
    page.mouse("Moved", left + 0.9 * width, top + 0.9 * width)  # the pen is up
    drawn = stage(page)
    rows, columns = np.nonzero(drawn > 0.05)
    assert 19 <= np.ptp(rows) + 1 <= 22 and 7 <= np.ptp(columns) + 1 <= 10  # the longer side fills the box of 20 px
    frame = drawn[5:33, 60:88]
    assert frame.sum() == drawn.sum()
    mass = [(np.arange(28) + 0.5) @ frame.sum(axis) / frame.sum() for axis in (0, 1)]
    np.testing.assert_allclose(mass, 14, atol=0.51)  # moved by whole pixels, as MNIST's digits are
    click(page, "run")
    assert text(page, "run") == "Pause"
    page.evaluate("""new Promise((resolve) => {
        const run = document.getElementById("live-run");
        new MutationObserver(() => { if (run.disabled) resolve(); }).observe(run, { attributes: true });
    })""")
    assert "The answer is" in text(page, "status") and "right" not in text(page, "status")
    click(page, "clear")
    set_slider(page, "pieces", 10)
    assert 0 < (stage(page) > 0).sum() <= 10 * 64  # clutter alone


def test_everything_can_be_done_from_the_keyboard(opened):
    page = opened()
    focus = lambda: page.evaluate("document.activeElement.id || document.activeElement.value")  # noqa: E731
    page.evaluate("document.querySelector('[name=live-source]').focus()")
    page.press("ArrowRight")
    assert focus() == "drawn"
    page.press("Tab")
    assert focus() == "live-pad"
    set_slider(page, "pieces", 0)
    page.press("ArrowRight")
    assert stage(page).max() == 0  # the pen is up
    page.press(" ")
    for _ in range(8):
        page.press("ArrowDown")
    page.press(" ")
    lit = stage(page) > 0.5
    assert lit.any(1).sum() >= 18 and lit.any(0).sum() <= 4  # an upright stroke
    order = []
    while len(order) < 20 and (not order or order[-1] != "live-reset"):
        page.press("Tab")
        order.append(focus())
    assert order == [f"live-{name}" for name in ("x", "y", "pieces", "shuffle", "clear", "step", "run", "reset")]
    page.evaluate("document.getElementById('live-step').focus()")
    page.press("Enter")
    assert "quadrant" in text(page, "status")


@pytest.mark.parametrize("source", ["test", "drawn"])
@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_is_wider_than_its_window(opened, width, source):
    page = opened(width)
    page.evaluate(f"document.querySelector('[name=live-source][value={source}]').click()")
    assert page.evaluate("window.innerWidth") == width
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_names_and_colours_reach_every_reader(opened):
    page = opened(theme="dark")
    unnamed = page.evaluate("""[...document.querySelectorAll("#live :is(canvas, input, button)")].filter(
        (one) => !(one.ariaLabel || one.textContent || one.labels?.length || one.closest("label"))
      ).map((one) => one.outerHTML)""")
    assert unnamed == []
    colours = lambda: page.evaluate(  # noqa: E731
        "[...['.live-controls', '#live-status', '.live-bars th', '#live figcaption', '#live-step']].map((name) => "
        "[getComputedStyle(document.querySelector(name)).backgroundColor, "
        "getComputedStyle(document.querySelector(name)).color].join(' on '))"
    )
    dark = colours()
    opened(theme="light")
    assert all(one != other for one, other in zip(dark, colours(), strict=True))


def publish(tmp_path: Path, write_made, **places) -> None:
    for record in write_made(tmp_path / "runs", table="table2", dataset="clutter100-10", **places):
        path = tmp_path / "checkpoints" / record.relative_to(tmp_path / "runs").with_suffix(".safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_the_strongest_preset_comes_first_then_the_lowest_validation_error(tmp_path, write_made):
    find = lambda: live.find(tmp_path / "checkpoints", tmp_path / "runs")  # noqa: E731
    assert find() is None
    right = torch.ones(5, 50, dtype=torch.bool)
    # The validation error of a made record is 2 plus its seed.
    publish(tmp_path, write_made, preset="paper", outcomes={("ours-6", 1): right, ("ours-8", 0): right})
    assert (find()[1]["preset"], find()[1]["row"]) == ("paper", "ours-8")
    publish(tmp_path, write_made, preset="converged", outcomes={("ram-6", 0): right})
    assert find()[1]["preset"] == "paper"  # a plain RAM chooses no quadrant
    publish(tmp_path, write_made, preset="converged", outcomes={("ours-6", 3): right, ("ours-8", 4): right})
    path, record = find()
    assert (record["preset"], record["row"], record["seed"]) == ("converged", "ours-6", 3)
    assert path == tmp_path / "checkpoints/table2/converged/clutter100-10/ours-6/seed-3.safetensors"
    path.unlink()
    assert find()[1]["row"] == "ours-8"


def test_a_checkpoint_of_another_kind_is_refused(tmp_path, made_record):
    record = made_record("ours-6", 0, torch.ones(5, 50, dtype=torch.bool), "paper", "clutter100-10", "table2")
    config = Config(**record["config"])
    for changes, said in (({"epochs": 1}, "not of the configuration"), ({"levels": 2}, "this model takes 2")):
        other = dataclasses.replace(config, **changes)
        checkpoints.save(tmp_path / "made", build(other, *data.shape_of(other.dataset)), other, 0)
        with pytest.raises(UramError, match=said):
            live.load(tmp_path / "made", record | ({"config_hash": other.hash} if "levels" in changes else {}))


def test_the_words_follow_the_record(made_record):
    wrong = torch.arange(50) % 4 > 0
    far, near = [40.0, 30.0, 22.4, 31.0], [40.0, 9.0, 7.0, 6.2]
    made = lambda distances: made_record("ours-6", 0, wrong.expand(5, 50), "paper", "clutter100-10", "table2",  # noqa: E731
                                         glimpse_distance_px=distances)  # fmt: skip
    said = live.model_text(ROOT / "results" / "x", made(far)).replace("\u00a0", " ")
    assert "errs on **26.00 %**" in said and "of 50 canvases" in said and "`results/x`" in said
    assert "on 60 % of the test canvases" in said and "on 10, 20, 30 and 40 % of them" in said
    assert "**On average its glimpses do not come to the digit.**" in said
    assert "40 px at the start, least at glimpse 3 with 22 px, and 31 px at the last" in said
    said = live.model_text(ROOT, made(near)).replace("\u00a0", " ")
    assert "On average its glimpses find their way to the digit." in said
    assert "40 px at the start and least at glimpse 4, the last, with 6 px; the frame" in said


def test_without_a_checkpoint_the_page_says_so():
    assert "No checkpoint" in live.fragments(None)["live-model.md"]


@pytest.mark.parametrize(("share", "away"), [(2.4, True), (12.5, True), (12.6, False), (60.0, False)])
def test_the_page_says_when_the_chosen_quadrant_keeps_away_from_the_digit(share, away):
    text = live.quadrant_text({"in_region_percent": share, "action_histogram": [[0.1, 0.2, 0.3, 0.4]]})
    assert ("start *away* from the digit" in text) == away and "about 25\u00a0%." in text
    assert text.endswith("on 10, 20, 30 and 40\u00a0% of them.")
