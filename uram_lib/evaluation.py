"""Testing a model over a whole split: the mean policy from several start locations (ledger B7), one sampled pass, and
ten sampled passes whose class probabilities are averaged."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from .data.base import Split
from .models.layers import Model, Trajectory
from .models.ram import start_location, uniform_start
from .objectives import attended_context
from .seeding import stream

BATCH = 500  # images at a time on a processor; on an accelerator ten times as many
AVERAGED = 10  # sampled passes whose class probabilities `test_error_averaged` averages
# Means of each glimpse, (T,): pixels to the object's centre, bits of the patch, percent of patches without any entropy.
LOOKS = ("glimpse_distance_px", "patch_entropy_bits", "blank_patch_percent")
# Test-time draws do not depend on the run's seed, so that all rows see the same starts.
EVALUATION_SEED = 0


def draws_in_testing(
    model: Model, images: Tensor, start_seed: int = 0, sampled: bool = False, centres: Tensor | None = None
) -> dict[str, Tensor]:
    """What `model` draws in testing on all of `images` (N, C, H, W), on their device (see `Model.draws`)."""
    streams = {name: stream(EVALUATION_SEED, name, start_seed) for name in ("start", "policy")}
    drawn = model.draws(len(images), streams, centres, sampled)
    return {name: value.to(images.device) for name, value in drawn.items()}


def stratified(labels: Tensor, count: int = 0) -> Tensor:
    """Indices of `count` of the images with these labels, (N,), or of all where count is 0 or too many. The order is
    fixed and the classes take turns, so every prefix holds them as evenly as it can."""
    order = torch.randperm(len(labels), generator=stream(EVALUATION_SEED, "stratified"))
    shuffled = labels.cpu()[order]
    rank = F.one_hot(shuffled).cumsum(0).gather(1, shuffled[:, None])[:, 0]  # (N,), 1 for the first of its class
    turns = (rank * (shuffled.max() + 1) + shuffled).argsort()
    return order[turns][: count or None].to(labels.device)


@torch.no_grad()
def rollouts(
    model: Model,
    images: Tensor,
    start_seed: int = 0,
    sampled: bool = False,
    centres: Tensor | None = None,
    start: str | None = None,
) -> Trajectory:
    """Roll the mean policy, or with `sampled` the sampled one, out on all of `images` (N, C, H, W), in batches.

    centres: (N, 2), the objects' in pixels, for a RAM that starts where they tell it to. start: a choice of
    `Config.start`, to put the bottom-up model there in place of its own start.
    """
    draws = draws_in_testing(model, images, start_seed, sampled, centres)
    if start is not None:
        model = getattr(model, "ram", model)
        uniform = uniform_start(len(images), stream(EVALUATION_SEED, "start", start_seed)).to(images.device)
        draws["start"] = start_location(start, uniform, centres, *images.shape[-2:])
    size = BATCH if images.device.type == "cpu" else 10 * BATCH
    batches = (slice(i, i + size) for i in range(0, len(images), size))
    parts = [model.rollout(images[some], {name: value[some] for name, value in draws.items()}) for some in batches]
    return Trajectory(*(torch.cat(values) for values in zip(*parts, strict=True)))


@dataclass(frozen=True)
class Evaluation:
    """What came out on N images in S passes from different starts. Means by glimpse are over images, or over the digits
    of numbers, whose glimpses are counted from the first at a digit. A number is right where all of it is."""

    correct: Tensor  # (S, N) bool
    sampled_correct: Tensor | None = None  # (N,) bool, in one sampled pass
    averaged_correct: Tensor | None = None  # (N,) bool, by the class probabilities of `AVERAGED` sampled passes
    looks: dict = field(default_factory=dict)  # where the model looks, as the record has it: LOOKS and `Model.describe`
    lengths: Tensor | None = None  # (N,), digits per number

    @property
    def error(self) -> float:
        """Percent, mean over the passes."""
        return wrong_percent(self.correct)

    def metrics(self) -> dict:
        """The record's entries."""
        errors = [wrong_percent(one) for one in self.correct]
        passes = f"{len(errors)} starts" if len(errors) > 1 else "one pass"
        test = f"mean policy, {passes} per image, whole test set"
        found = {"test_error": self.error, "test_error_by_start": errors, "test": test}
        if self.sampled_correct is not None:
            found["test_error_sampled"] = wrong_percent(self.sampled_correct)
            found["test_error_averaged"] = wrong_percent(self.averaged_correct)
        if self.lengths is not None:
            by_length = {str(n): self.correct[:, self.lengths == n] for n in self.lengths.unique().tolist()}
            found["test_error_by_length"] = {n: wrong_percent(correct) for n, correct in by_length.items()}
        return found | self.looks


def wrong_percent(correct: Tensor) -> float:
    """Percent of False among bools of any shape."""
    return 100 * (1 - correct.float().mean().item())


@torch.no_grad()
def mean_error(model: Model, split: Split) -> float:
    """Percent of `split` that one pass along the mean path answers wrongly, in evaluation mode: the first of the passes
    of `evaluate`, without what that notes beside it."""
    seen = rollouts(model.eval(), split.floats(), centres=split.centres)
    return wrong_percent(match(model.decode(model.probabilities(seen)), split.labels))


@torch.no_grad()
def evaluate(model: Model, split: Split, start_seeds: int = 1, sampled: bool = False) -> Evaluation:
    """Test `model` on all of `split`, in evaluation mode. start_seeds: passes along the mean path, each from another
    start; one where nothing is drawn. sampled: also test the sampled policy, in one pass and averaged over `AVERAGED`.
    """
    model.eval()
    images, labels, centres = split.floats(), split.labels, split.centres
    passes = start_seeds if draws_in_testing(model, images[:1], centres=centres[:1]) else 1
    correct, looks = [], []
    for k in range(passes):
        seen = rollouts(model, images, k, centres=centres)
        correct.append(match(model.decode(model.probabilities(seen)), labels))
        if not seen.locations.shape[1]:  # nothing was looked at
            return Evaluation(torch.stack(correct), lengths=split.lengths)
        entropies = split.per_object(seen.patch_entropies)  # (M, T)
        away, blank = split.glimpse_distances(seen.locations).mean(0), 100 * (entropies == 0).float().mean(0)  # (T,)
        looks.append(torch.stack((away, entropies.mean(0), blank)))
    one = averaged = None
    if sampled:
        seen = (rollouts(model, images, k, sampled=True, centres=centres) for k in range(AVERAGED))
        found = [model.probabilities(trajectory) for trajectory in seen]
        one, averaged = (match(model.decode(answers), labels) for answers in (found[0], sum(found)))
    looks = dict(zip(LOOKS, torch.stack(looks).mean(0).tolist(), strict=True)) | model.describe(images, centres)
    return Evaluation(torch.stack(correct), one, averaged, looks, split.lengths)


def match(answers: Tensor, labels: Tensor) -> Tensor:
    """Which answers are right, (N,) bool: classes (N,), or numbers (N, 6), of which every place counts."""
    return (answers == labels).reshape(len(labels), -1).all(1)


@torch.no_grad()
def label_leak(model: Model, split: Split, form: str = "attended") -> tuple[dict, Tensor]:
    """Whether Z of Eq. 11 reads the label from the weights that the label itself chooses.

    Tells Z of every image each of the K labels in turn. Returns percentages: how often the `answer` from the last
    glimpse is wrong, how often `Z` is when told the true label, how often Z `repeats` a wrong label that it is told,
    and how often it would by `chance`, were it as good as the answer; and a matrix (K, K) in percent, label told x
    label answered. model: trained with the context constraint in this form.
    """
    images, labels = split.floats(), split.labels
    ram = getattr(model, "ram", model)
    seen = rollouts(model.eval(), images, centres=split.centres)
    classes = seen.class_logits.shape[-1]
    told = torch.arange(classes, device=labels.device)
    contexts = (attended_context(seen.hiddens, seen.class_logits, k.expand_as(labels), form) for k in told)
    answers = torch.stack([ram.context_network(context).argmax(-1) for context in contexts])  # (K, N)
    others = told[:, None] != labels  # (K, N): wrong labels
    wrong = wrong_percent(seen.class_logits[:, -1].argmax(-1) == labels)
    found = {
        "answer": wrong,
        "Z": wrong_percent(answers.gather(0, labels[None])[0] == labels),
        "repeats": 100 - wrong_percent((answers == told[:, None])[others]),
        "chance": wrong / (classes - 1),
    }
    return found, 100 * F.one_hot(answers, classes).float().mean(1)
