"""Testing a model over a whole split: the mean policy from several start locations (ledger B7), or of readers of
numbers, which choose their start, one pass."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import Split
from .data.sequences import TERMINAL, Sequences, counting
from .glimpse import location_to_pixel
from .models import DRAM, RAM, ElevenLayerCNN, Trajectory, Unified, bottom_up
from .models.number_cnns import most_probable
from .models.unified import action_histogram, share_in_region, start_location
from .objectives import attended_context
from .seeding import stream

BATCH = {"cpu": 500}  # images at a time; on an accelerator OTHER_BATCH
OTHER_BATCH = 5_000
# Test-time draws do not depend on the run's seed, so that all rows see the same starts. Those numbered k have the name
# of training epoch k's draws in runs with seed 0; the published records were tested so, and notebook 10 measures
# that it does not matter.
EVALUATION_SEED = 0


def uniform_start(count: int, generator: torch.Generator) -> Tensor:
    """(count, 2) start locations, uniform over the image, as RAM starts."""
    return torch.rand(count, 2, generator=generator, device=generator.device) * 2 - 1


def draws_in_testing(model: nn.Module, images: Tensor, start_seed: int = 0, sampled: bool = False) -> tuple:
    """What `model` draws in testing on all of `images` (N, C, H, W), on their device: nothing, or where it has glimpses
    its uniform starts, (N, 2), and the noise of its policy, (N, T - 1, 2), or None for the mean policy."""
    if (ram := bottom_up(model)) is None:
        return ()
    starts = uniform_start(len(images), stream(EVALUATION_SEED, "start", start_seed)).to(images.device)
    if not (sampled or ram.always_sampled):
        return starts, None
    generator = stream(EVALUATION_SEED, "policy", start_seed)
    actions = ram.glimpses - (0 if isinstance(ram, DRAM) else 1)
    return starts, torch.randn(len(images), actions, 2, generator=generator).to(images.device)


def stratified(labels: Tensor, count: int = 0) -> Tensor:
    """Indices of `count` of the images that have these labels, (N,), or of all where count is 0 or too many.

    The order is fixed and the classes take turns, so every prefix holds them as evenly as it can.
    """
    order = torch.randperm(len(labels), generator=stream(EVALUATION_SEED, "stratified"))
    shuffled = labels.cpu()[order]
    rank = F.one_hot(shuffled).cumsum(0).gather(1, shuffled[:, None])[:, 0]  # (N,), 1 for the first of its class
    turns = (rank * (shuffled.max() + 1) + shuffled).argsort()
    return order[turns][: count or None].to(labels.device)


@dataclass(frozen=True)
class Evaluation:
    """correct: (S, N) bool for S start seeds; monte_carlo_correct: (N,) after averaging the S sampled rollouts, or
    None; the three after it are means over images by glimpse (T,), empty for models without glimpses. top_down, of a
    model that chooses its start: `action_histogram`, shares (L lists of 4); `q_values`, means (L lists of 4);
    `in_region_percent`, images whose object has its centre in the chosen region.

    A number is right where all of it is. error_by_length: of numbers, percent by the number of digits, of the lengths
    that there are. Its glimpses are counted from the first at a digit, so T is that of one digit: distances are those
    to the digit that is read, entropies and blanks those at all digits and the end."""

    correct: Tensor
    monte_carlo_correct: Tensor | None
    glimpse_distance_px: list[float]
    patch_entropy_bits: list[float]
    blank_patch_percent: list[float]
    top_down: dict[str, list | float] = field(default_factory=dict)
    error_by_length: dict[int, float] = field(default_factory=dict)

    @property
    def error(self) -> float:
        """Percent, mean over start seeds."""
        return 100 * (1 - self.correct.float().mean().item())

    def metrics(self) -> dict:
        """The record's entries."""
        errors = (100 * (1 - self.correct.float().mean(1))).tolist()
        searching = self.glimpse_distance_px and not self.error_by_length  # a reader of numbers starts where it likes
        passes = f"{len(errors)} start(s)" if searching else "one pass"
        found = {
            "test_error": self.error,
            "test_error_by_start": errors,
            "test": f"mean policy, {passes} an image, whole test set",
        }
        if self.monte_carlo_correct is not None:
            found["test_error_monte_carlo"] = 100 * (1 - self.monte_carlo_correct.float().mean().item())
        if self.error_by_length:
            found["test_error_by_length"] = {str(n): error for n, error in self.error_by_length.items()}
        return found | self.glimpses()

    def glimpses(self) -> dict:
        """The record's entries on where the model looks; none for models without glimpses."""
        if not self.glimpse_distance_px:
            return {}
        return {
            "glimpse_distance_px": self.glimpse_distance_px,
            "patch_entropy_bits": self.patch_entropy_bits,
            "blank_patch_percent": self.blank_patch_percent,
            **({"top_down": self.top_down} if self.top_down else {}),
        }


@torch.no_grad()
def rollouts(
    model: RAM | Unified,
    images: Tensor,
    start_seed: int,
    sampled: bool = False,
    centres: Tensor | None = None,
    start: str | None = None,
) -> Trajectory:
    """Roll the policy out from uniform start `start_seed`, on all of `images` (N, C, H, W) in batches; of the unified
    model from a place in the region that it chooses, with the same draws; of the reader of numbers from the place that
    it chooses.

    The mean policy, or with `sampled`, and where there is none, the sampled one. centres: (N, 2), the objects' in
    pixels, for a RAM that starts where they tell it to. start: one of `models.ram.STARTS`, to put the bottom-up model
    there in place of its own start. Returns the trajectory of all N. Raises ValueError where a start lacks its centres.
    """
    ram = bottom_up(model)
    where = start or ram.start
    if start is not None:
        model = ram
    starts, noise = draws_in_testing(model, images, start_seed, sampled)
    if where != "uniform":
        if centres is None and where != "image-centre":
            raise ValueError(f"a start at {where!r} takes the objects' centres")
        starts = start_location(where, starts, centres, *images.shape[-2:])
    parts = []
    size = BATCH.get(images.device.type, OTHER_BATCH)
    for i in range(0, len(images), size):
        part, start = slice(i, i + size), starts[i : i + size]
        own = None if noise is None else noise[part]
        if isinstance(model, Unified):
            parts.append(model(images[part], (start + 1) / 2, own)[0])
        elif isinstance(model, DRAM):
            parts.append(model(images[part], own))
        else:
            parts.append(model(images[part], start, own))
    return Trajectory(*(torch.cat(field) for field in zip(*parts, strict=True)))


@torch.no_grad()
def label_leak(model: RAM | Unified, split: Split, start_seed: int = 0) -> dict[str, float]:
    """Whether Z of Eq. 11 reads the label from the weights that the label itself chooses. In percent of images, from
    one start each: how often the `answer`, from the last glimpse, is wrong; how often `Z` is, given the true
    label; how often Z `repeats` a wrong label that is drawn for the image; and how often it would by `chance`, were it
    as good as the answer and ignored what it is given. For a model that was trained with the context constraint.
    """
    images, labels, ram = split.floats(), split.labels, bottom_up(model)
    seen = rollouts(model, images, start_seed, centres=split.centres)
    classes = seen.class_logits.shape[-1]

    def told(given: Tensor) -> Tensor:
        return ram.context_network(attended_context(seen.hiddens, seen.class_logits, given)).argmax(-1)

    shift = torch.randint(1, classes, labels.shape, generator=stream(EVALUATION_SEED, "wrong labels")).to(labels.device)
    other = (labels + shift) % classes
    percent = lambda which: 100 * which.float().mean().item()  # noqa: E731
    wrong = percent(seen.class_logits[:, -1].argmax(-1) != labels)
    return {
        "answer": wrong, "Z": percent(told(labels) != labels), "repeats": percent(told(other) == other),
        "chance": wrong / (classes - 1),
    }  # fmt: skip


def distances_px(trajectory: Trajectory, split: Split) -> Tensor:
    """From each glimpse to the object's centre, (N, T), in pixels. trajectory: of all images of `split`."""
    pixels = location_to_pixel(trajectory.locations, *split.images.shape[-2:])  # (N, T, 2)
    return (pixels - split.centres[:, None]).norm(dim=-1)


@torch.no_grad()
def evaluate(model: nn.Module, split: Split, start_seeds: int = 1, monte_carlo: bool = False) -> Evaluation:
    """Test `model` on all of `split`, in evaluation mode.

    start_seeds: rollouts an image, each from another uniform start; feed-forward models have one. monte_carlo: also
    classify by the mean class probability of as many sampled rollouts.
    """
    model.eval()
    if isinstance(split, Sequences):
        return evaluate_numbers(model, split, start_seeds if monte_carlo else 0)
    images, labels = split.floats(), split.labels
    if bottom_up(model) is None:
        size = BATCH.get(images.device.type, OTHER_BATCH)
        logits = torch.cat([model(images[i : i + size]) for i in range(0, len(images), size)])
        return Evaluation((logits.argmax(-1) == labels)[None], None, [], [], [])
    correct, distances, entropies, blanks = [], [], [], []
    probability = 0
    for k in range(start_seeds):
        trajectory = rollouts(model, images, k, centres=split.centres)
        correct.append(trajectory.class_logits[:, -1].argmax(-1) == labels)
        distances.append(distances_px(trajectory, split).mean(0))  # (T,)
        entropies.append(trajectory.patch_entropies.mean(0))
        blanks.append((trajectory.patch_entropies == 0).float().mean(0) * 100)
        if monte_carlo:
            sampled = rollouts(model, images, k, sampled=True, centres=split.centres)
            probability = probability + sampled.class_logits[:, -1].softmax(-1)
    mean = lambda parts: torch.stack(parts).mean(0).tolist()  # noqa: E731
    return Evaluation(
        torch.stack(correct),
        probability.argmax(-1) == labels if monte_carlo else None,
        mean(distances),
        mean(entropies),
        mean(blanks),
        choices(model, split) if isinstance(model, Unified) else {},
    )


def read_out(probabilities: Tensor) -> Tensor:
    """The number that class probabilities (or logits) at its six places, (B, 6, 11), spell out, as labels (B, 6)."""
    classes = probabilities.argmax(-1)
    ended = (classes == TERMINAL).cumsum(1) > 0  # from the first class 10 on
    return classes.masked_fill(ended, TERMINAL)


def spoken(trajectory: Trajectory, places: int) -> Tensor:
    """The class logits after the last glimpse at each of `places`, (B, places, 11), of which a number is read."""
    return trajectory.class_logits.unflatten(1, (places, -1))[:, :, -1]


@torch.no_grad()
def evaluate_numbers(model: DRAM | ElevenLayerCNN, split: Sequences, samples: int = 0) -> Evaluation:
    """`evaluate` for readers of whole numbers: one pass, in which the mean policy leaves nothing to chance.

    samples: rollouts of the Gaussian policy whose class probabilities are averaged for `monte_carlo_correct`; 0: none.
    """
    images, labels = split.floats(), split.labels
    places = labels.shape[1]
    if isinstance(model, ElevenLayerCNN):
        size = BATCH.get(images.device.type, OTHER_BATCH)
        numbers = torch.cat([most_probable(model(images[i : i + size])) for i in range(0, len(images), size)])
        correct = (numbers == labels).all(1)
        return Evaluation(correct[None], None, [], [], [], error_by_length=error_by_length(correct, split.lengths))
    trajectory = rollouts(model, images, 0)
    correct = (read_out(spoken(trajectory, places)) == labels).all(1)
    probability = 0
    for k in range(samples):
        probability = probability + spoken(rollouts(model, images, k, sampled=True), places).softmax(-1)
    counts = counting(labels)  # (N, 6)
    pixels = location_to_pixel(trajectory.locations, *images.shape[-2:]).unflatten(1, (places, -1))  # (N, 6, T, 2)
    is_digit = counts[:, 1:]  # (N, 5): a place holds a digit where the next one counts
    distances = (pixels[:, :-1] - split.centres[:, :, None]).norm(dim=-1)[is_digit]  # (digits, T)
    entropies = trajectory.patch_entropies.unflatten(1, (places, -1))[counts]  # (places that count, T)
    return Evaluation(
        correct[None],
        (read_out(probability) == labels).all(1) if samples else None,
        distances.mean(0).tolist(),
        entropies.mean(0).tolist(),
        ((entropies == 0).float().mean(0) * 100).tolist(),
        error_by_length=error_by_length(correct, split.lengths),
    )


def error_by_length(correct: Tensor, lengths: Tensor) -> dict[int, float]:
    """Percent of wrong numbers by their number of digits. correct: (N,) bool; lengths: (N,)."""
    return {n: 100 * (1 - correct[lengths == n].float().mean().item()) for n in lengths.unique().tolist()}


@torch.no_grad()
def choices(model: Unified, split: Split) -> dict[str, list | float]:
    """What the top-down model of `model` does on all of `split`: `top_down` of `Evaluation`. Its choices in testing
    are arg max, so they do not depend on the start's draw."""
    outcome = model.topdown(split.floats())
    return {
        "action_histogram": action_histogram(outcome).tolist(),
        "q_values": outcome.values.mean(0).tolist(),
        "in_region_percent": 100 * share_in_region(outcome, split.centres, *split.images.shape[-2:]).item(),
    }
