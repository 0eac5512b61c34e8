"""What is minimised: REINFORCE with a baseline (Eq. 4), the entropy constraint (12-13), the context constraint (11)
and their sum, the hybrid loss (14), for the bottom-up model; the Q loss (8-9) for the top-down model. Every loss is a
scalar to be minimised; rewards are 0 or 1."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data.sequences import TERMINAL, counting, lengths_of
from .models.number_cnns import LengthAndDigits, most_probable
from .models.ram import Trajectory

ENTROPY_FORMS = ("none", "literal", "intent")
CONTEXT_FORMS = ("attended", "detached", "uniform", "each-step")
REWARDS = ("cumulative", "whole")


def correctness(trajectory: Trajectory, labels: Tensor) -> Tensor:
    """The reward R (Algorithm 1, line 15): 1 where the last prediction is right, else 0 (ledger A4). (B,)."""
    last = trajectory.class_logits[:, -1]  # (B, K)
    return (last.argmax(-1) == labels).to(last.dtype)


def policy_objective(
    log_probs: Tensor,
    rewards: Tensor,
    baselines: Tensor,
    patch_entropies: Tensor | None = None,
    entropy: str = "none",
    entropy_offset: float = 0.5,
    weights: Tensor | None = None,
) -> Tensor:
    """J of Eq. 12, whose gradient is Eq. 13; with `entropy="none"` that of Eq. 4. To be maximised.

    log_probs, baselines: (B, A) for A actions; rewards: (B,), R_T of the whole sequence;
    patch_entropies: (B, A), bits, of the patch that each action leads to (ledger D2);
    entropy_offset: lambda. Forms: "literal" weights the advantage, (H + lambda)(R - b), as printed;
    "intent" weights the reward, (H + lambda) R - b, which does pull towards rich patches (ledger D3).
    Returns the mean over the batch, weighted by `weights` (B,) if given, of the sum over actions.
    Raises ValueError on an unknown form or other shapes.
    """
    if entropy not in ENTROPY_FORMS:
        raise ValueError(f"unknown entropy form {entropy!r}; one of: {', '.join(ENTROPY_FORMS)}")
    if log_probs.shape != baselines.shape or rewards.shape != log_probs.shape[:1]:
        raise ValueError(f"shapes differ: {tuple(log_probs.shape)}, {tuple(baselines.shape)}, {tuple(rewards.shape)}")
    if entropy != "none" and (patch_entropies is None or patch_entropies.shape != log_probs.shape):
        found = None if patch_entropies is None else tuple(patch_entropies.shape)
        raise ValueError(f"patch entropies must be of shape {tuple(log_probs.shape)}, got {found}")
    if weights is not None and weights.shape != rewards.shape:
        raise ValueError(f"weights must be of shape {tuple(rewards.shape)}, got {tuple(weights.shape)}")
    reward = rewards[:, None]  # (B, 1), never (B,): (B,) against (B, A) would broadcast over actions
    baselines = baselines.detach()
    if entropy == "none":
        advantage = reward - baselines  # (B, A)
    elif entropy == "literal":
        advantage = (patch_entropies + entropy_offset) * (reward - baselines)
    else:
        advantage = (patch_entropies + entropy_offset) * reward - baselines
    objective = (log_probs * advantage.detach()).sum(1)  # (B,)
    return objective.mean() if weights is None else (objective * weights).mean()


def baseline_loss(baselines: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared error of b against the return that it predicts. baselines, targets: (B, A); weights: as above."""
    if not baselines.numel():
        return baselines.sum()
    if weights is None:
        return F.mse_loss(baselines, targets.detach())
    return ((baselines - targets.detach()).square().mean(1) * weights).mean()


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean cross entropy. logits: (B, K); labels: (B,); weights: (B,) or None."""
    if weights is None:
        return F.cross_entropy(logits, labels)
    return (F.cross_entropy(logits, labels, reduction="none") * weights).mean()


def context_loss(
    hiddens: Tensor,
    class_logits: Tensor,
    labels: Tensor,
    context_network: nn.Module,
    form: str = "attended",
    example_weights: Tensor | None = None,
) -> Tensor:
    """Cross entropy of the class predicted from the attended context (Eq. 11), or a control of it (ledger K3).

    hiddens: (B, T, D) core states; class_logits: (B, T, K); labels: (B,) in [0, K); example_weights: (B,) or None.
    Forms: "attended", the weights being alpha_{t,y}; "detached", the same without a gradient through them; "uniform",
    the weights being 1 / T; "each-step", no context at all: the mean cross entropy of the T predictions alpha_t.
    Returns a scalar. Uses the true label, so it is a training loss and never a prediction (ledger K1).
    Raises ValueError on an unknown form.
    """
    if form not in CONTEXT_FORMS:
        raise ValueError(f"unknown context form {form!r}; one of: {', '.join(CONTEXT_FORMS)}")
    steps = hiddens.shape[1]
    if form == "each-step":
        each = None if example_weights is None else example_weights.repeat_interleave(steps)
        return cross_entropy(class_logits.flatten(0, 1), labels.repeat_interleave(steps), each)
    if form == "uniform":
        return cross_entropy(context_network(hiddens.mean(1)), labels, example_weights)
    context = attended_context(hiddens, class_logits, labels, detached=form == "detached")
    return cross_entropy(context_network(context), labels, example_weights)


def attended_context(hiddens: Tensor, class_logits: Tensor, labels: Tensor, detached: bool = False) -> Tensor:
    """C = sum_t alpha_{t,y} H_t of Eq. 11, (B, D). Arguments as of `context_loss`; labels: the y that weigh.
    detached: no gradient through the weights."""
    weights = class_logits.softmax(-1).gather(-1, labels[:, None, None].expand(-1, hiddens.shape[1], 1))  # (B, T, 1)
    return ((weights.detach() if detached else weights) * hiddens).sum(1)


def hybrid_loss(
    trajectory: Trajectory,
    labels: Tensor,
    context_network: nn.Module | None,
    beta1: float,
    beta2: float,
    entropy: str,
    entropy_offset: float,
    context_form: str = "attended",
    rewards: Tensor | None = None,
    weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of Eq. 14: -y log alpha_T - beta1 y log z - beta2 J, plus the baseline's regression.

    labels: (B,). J enters with a minus sign: the printed plus would lower the reward (ledger D8).
    `context_network=None` leaves out the beta1 term; `context_form` is that of `context_loss`. rewards: (B,),
    `correctness` where None; weights: (B,), of each image in every term, 1 where None. Returns the loss and its
    detached parts, each a scalar: `cross_entropy`, `context`, `policy`, `baseline`, and the mean `reward`.
    """
    last = trajectory.class_logits[:, -1]  # (B, K)
    rewards = correctness(trajectory, labels) if rewards is None else rewards  # (B,)
    classes = cross_entropy(last, labels, weights)
    context = (
        context_loss(trajectory.hiddens, trajectory.class_logits, labels, context_network, context_form, weights)
        if context_network is not None
        else torch.zeros_like(classes)
    )
    glimpses, actions = trajectory.patch_entropies.shape[1], trajectory.log_probs.shape[1]
    entropies = trajectory.patch_entropies[:, glimpses - actions :]  # (B, A): the patches that the actions led to
    objective = policy_objective(
        trajectory.log_probs, rewards, trajectory.baselines, entropies, entropy, entropy_offset, weights
    )
    returns = rewards[:, None].expand_as(trajectory.baselines)
    if entropy == "intent":
        returns = (entropies + entropy_offset) * returns
    regression = baseline_loss(trajectory.baselines, returns, weights)
    loss = classes + beta1 * context - beta2 * objective + regression
    parts = {"cross_entropy": classes, "context": context, "policy": objective, "baseline": regression}
    mean_reward = rewards.to(regression.dtype).mean()  # bfloat16, in which rewards may be, rounds a mean
    return loss, {name: part.detach() for name, part in parts.items()} | {"reward": mean_reward}


def by_place(trajectory: Trajectory, places: int) -> Trajectory:
    """A rollout of T glimpses and T actions as `places` rollouts: (B, T, ...) -> (B places, T / places, ...)."""
    return Trajectory(*(field.unflatten(1, (places, -1)).flatten(0, 1) for field in trajectory))


def returns_of(right: Tensor, counts: Tensor, reward: str) -> Tensor:
    """The return of the glimpses at each place of a number, (B, N) in [0, 1].

    right: (B, N) bool, whether the class at that place is right; counts: (B, N) bool, which places are no padding.
    "cumulative": a place is worth 1 while it and all before it are right; the return of a place is what it and those
    after it are worth, over the number of places that count, so the first one's is the share of the number that is
    read. "whole": 1 at each place where the whole number is right, else 0. Raises ValueError for another `reward`.
    """
    if reward not in REWARDS:
        raise ValueError(f"unknown reward {reward!r}; one of: {', '.join(REWARDS)}")
    if reward == "whole":
        return (right | ~counts).all(1, keepdim=True).expand_as(right).to(torch.get_default_dtype())
    worth = (right & counts).to(torch.get_default_dtype()).cumprod(1)  # (B, N)
    return worth.flip(1).cumsum(1).flip(1) / counts.sum(1, keepdim=True)


def number_loss(
    trajectory: Trajectory,
    labels: Tensor,
    context_network: nn.Module | None,
    beta1: float,
    beta2: float,
    entropy: str,
    entropy_offset: float,
    reward: str,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 14 for a number: the sum over its digits and its end of `hybrid_loss`, each over its own glimpses and with
    its own label (ledger I), the mean over images. What lies behind the end adds nothing.

    trajectory: T glimpses and T actions; labels: (B, N), N a divisor of T; reward: as `returns_of` takes it.
    Returns as `hybrid_loss`; `reward` is the share of numbers that are wholly right.
    """
    digits = by_place(trajectory, labels.shape[1])  # B N rollouts
    counts = counting(labels)  # (B, N)
    right = digits.class_logits[:, -1].argmax(-1).view_as(labels) == labels  # (B, N)
    loss, parts = hybrid_loss(
        digits, labels.flatten(), context_network, beta1, beta2, entropy, entropy_offset,
        rewards=returns_of(right, counts, reward).flatten(),
        weights=(counts * labels.shape[1]).flatten(),  # the mean over B N is then the sum over N, the mean over B
    )  # fmt: skip
    return loss, parts | {"reward": (right | ~counts).all(1).float().mean()}


def length_and_digits_loss(heads: LengthAndDigits, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """-log P(length) - sum over the digits that there are of log P(digit), the mean over images. labels: (B, 6).

    Returns the loss and its detached part, `cross_entropy`, and the share `reward` of numbers that are wholly right.
    """
    batch, places, _ = heads.digit_logits.shape
    length = F.cross_entropy(heads.length_logits, lengths_of(labels) - 1)
    digits = F.cross_entropy(
        heads.digit_logits.flatten(0, 1), labels[:, :places].flatten(), ignore_index=TERMINAL, reduction="sum"
    )
    loss = length + digits / batch
    right = (most_probable(heads) == labels).all(1)  # (B,)
    return loss, {"cross_entropy": loss.detach(), "reward": right.float().mean()}


def q_loss(values: Tensor, actions: Tensor, rewards: Tensor, next_values: Tensor, gamma: float) -> Tensor:
    """Squared error of Q against its target (Eq. 9), the mean over images and levels.

    values: (B, L, 4), Q of all regions at each level; actions: (B, L), the regions chosen; rewards: (B,), of the
    outcome; next_values: (B, L - 1), max_a Q(s_{l+1}, a) of the frozen network (ledger A3); gamma: in [0, 1].
    The target (Eq. 8) is y = r at the last level, where the reward is paid and the episode ends, and
    y = gamma max_a Q(s_{l+1}, a) before it, where r = 0. So with one level, y = r: a regression of the outcome, into
    which neither gamma nor the frozen network enters (ledger A2). y is a constant: the gradient flows into `values`.
    Raises ValueError for other shapes.
    """
    batch, levels = actions.shape
    if values.shape[:2] != (batch, levels) or rewards.shape != (batch,) or next_values.shape != (batch, levels - 1):
        shapes = (tuple(t.shape) for t in (values, actions, rewards, next_values))
        raise ValueError("shapes differ: {}, {}, {}, {}".format(*shapes))
    chosen = values.gather(-1, actions[..., None])[..., 0]  # (B, L), Q(s_l, a_l)
    targets = torch.cat((gamma * next_values, rewards[:, None]), 1)  # (B, L), y_l
    return F.mse_loss(chosen, targets.detach())
