"""What is minimised, scalars all: REINFORCE with a baseline (Eq. 4), the entropy constraint (12-13), the context
constraint (11) and their sum, the hybrid loss (14), for the bottom-up model; the Q loss (8-9) for the top-down one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import TERMINAL
from .data.base import counting, lengths_of
from .paper import BETA1, ENTROPY_OFFSET

GAMMA = 0.99  # of Eq. 8, which gives none; without effect where there is one decision (ledger A2)


def correctness(trajectory, labels: Tensor) -> Tensor:
    """The reward R (Algorithm 1, line 15): 1 where the last prediction is right, else 0 (ledger A4). (B,)."""
    return (trajectory.class_logits[:, -1].argmax(-1) == labels).to(trajectory.class_logits.dtype)


def right_probabilities(trajectory, labels: Tensor) -> Tensor:
    """The probability of the right class after each glimpse, (B, T), without gradient."""
    return trajectory.class_logits.detach().softmax(-1).take_along_dim(labels[:, None, None], -1)[..., 0]


def rewards_to_go(trajectory, labels: Tensor) -> Tensor:
    """For each action, (B, A), the mean probability of the right class over the glimpses that it can still change."""
    right, actions = right_probabilities(trajectory, labels), trajectory.log_probs.shape[1]
    left = torch.arange(actions, 0, -1, device=right.device)
    return right[:, right.shape[1] - actions :].flip(1).cumsum(1).flip(1) / left


def chooser_rewards(trajectory, labels: Tensor, kind: str) -> Tensor:
    """The top-down model's reward, (B,): the `outcome`, 1 or 0; the same `signed`, 1 or -1 (ledger A4); or `early`,
    the probability of the right class after the second glimpse (ledger A4')."""
    if kind == "early":
        return right_probabilities(trajectory, labels)[:, :2][:, -1]
    outcome = correctness(trajectory, labels)
    return 2 * outcome - 1 if kind == "signed" else outcome


def policy_objective(
    log_probs: Tensor,
    rewards: Tensor,
    baselines: Tensor,
    patch_entropies: Tensor | None = None,
    entropy: str = "none",
    entropy_offset: float = ENTROPY_OFFSET,
    weights: Tensor | None = None,
) -> Tensor:
    """J of Eq. 12, whose gradient is Eq. 13; with `entropy="none"` that of Eq. 4. To be maximised.

    log_probs, baselines: (B, A) for A actions; rewards: (B,), R_T of the whole sequence, or (B, A), of each action;
    patch_entropies: (B, A), bits, of each action's patch (ledger D2); entropy_offset: lambda. Forms: "literal" weights
    the advantage, (H + lambda)(R - b), as printed; "intent" weights the reward, (H + lambda) R - b, which does pull
    towards rich patches (ledger D3); "constant" weights every advantage with the mean of H + lambda (ledger D4).
    Returns the mean over the batch, weighted by `weights` (B,) if given, of the sum over actions.
    Raises ValueError on an unknown form or other shapes.
    """
    shapes = [None if t is None else tuple(t.shape) for t in (log_probs, baselines, rewards, patch_entropies)]
    fit = shapes[1] == shapes[0] and shapes[2] in (shapes[0], shapes[0][:1])
    if not fit or (entropy != "none" and shapes[3] != shapes[0]):
        raise ValueError("shapes differ: {}, {}, {}, {}".format(*shapes))
    # (B,) against (B, A) would broadcast over actions.
    reward = rewards[:, None] if rewards.ndim == 1 else rewards  # (B, 1) or (B, A)
    baselines = baselines.detach()
    weight = 1.0 if entropy == "none" else patch_entropies + entropy_offset  # (B, A)
    if entropy == "constant":
        weight = weight.mean()
    elif entropy not in ("none", "literal", "intent"):
        raise ValueError(f"unknown entropy form {entropy!r}; one of: none, literal, intent, constant")
    if entropy == "intent":
        advantage = weight * reward - baselines
    else:
        advantage = weight * (reward - baselines)  # Eq. 12 as printed, or Eq. 4
    objective = (log_probs * advantage.detach()).sum(1)  # (B,), Eq. 12
    return objective.mean() if weights is None else (objective * weights).mean()


def baseline_loss(baselines: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared error of b against the return that it predicts. baselines, targets: (B, A); weights: as above."""
    if not baselines.numel():
        return baselines.sum()  # 0
    if weights is None:
        return F.mse_loss(baselines, targets.detach())
    return ((baselines - targets.detach()).square().mean(1) * weights).mean()


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean cross entropy. logits: (B, K), or (B, T, K), T predictions of one label; labels: (B,); weights: as above."""
    if logits.ndim == 3:
        steps, logits = logits.shape[1], logits.flatten(0, 1)
        labels = labels.repeat_interleave(steps)
        weights = None if weights is None else weights.repeat_interleave(steps)
    if weights is None:
        return F.cross_entropy(logits, labels)
    return (F.cross_entropy(logits, labels, reduction="none") * weights).mean()


def context_loss(
    hiddens: Tensor,
    class_logits: Tensor,
    labels: Tensor,
    context_network: nn.Module,
    form: str = "attended",
    weights: Tensor | None = None,
) -> Tensor:
    """Cross entropy of the class predicted from the attended context (Eq. 11), or another reading of it.

    hiddens: (B, T, D) core states; class_logits: (B, T, K); labels: (B,) in [0, K); weights: as above. Forms: those of
    `attended_context`, and "each-step", no context at all: the mean cross entropy of the T predictions alpha_t.
    A training loss and never a prediction (ledger K1). Raises ValueError on an unknown form.
    """
    if form == "each-step":
        return cross_entropy(class_logits, labels, weights)
    context = attended_context(hiddens, class_logits, labels, form)
    return cross_entropy(context_network(context), labels, weights)


def attended_context(hiddens: Tensor, class_logits: Tensor, labels: Tensor, form: str = "attended") -> Tensor:
    """C = sum_t w_t H_t, (B, D). labels: the y that weigh; other arguments as of `context_loss`.

    Forms: "attended", w_t = alpha_{t,y} (Eq. 11); "detached", the same without a gradient through w; "normalised", the
    same, summing to 1 over time (ledger K2); "confidence", w_t = max_k alpha_{t,k}, which no label enters (ledger K2');
    "uniform", w_t = 1 / T (ledger K3).
    """
    if form == "uniform":
        return hiddens.mean(1)
    alpha = class_logits.softmax(-1)  # (B, T, K)
    if form == "confidence":
        weights = alpha.amax(-1, keepdim=True)  # (B, T, 1)
    else:
        weights = alpha.take_along_dim(labels[:, None, None], -1)  # (B, T, 1)
    if form == "detached":
        weights = weights.detach()
    elif form == "normalised":
        weights = weights / weights.sum(1, keepdim=True)
    elif form not in ("attended", "confidence"):
        raise ValueError(f"unknown form of the context {form!r}")
    return (weights * hiddens).sum(1)  # C of Eq. 11


def hybrid_loss(
    trajectory, labels: Tensor, context_network, config, rewards: Tensor | None = None, weights: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of Eq. 14: -y log alpha_T - beta1 y log z - beta2 J, plus the baseline's regression and, where
    `config.each_step` is not 0, that times the mean cross entropy of all predictions but the last.

    labels: (B,); config: `Config.at` the epoch. J enters with a minus sign: the printed plus would lower the reward
    (ledger D8). No context network, no beta1 term. rewards: (B,), or (B, A) of each action, by default what
    `config.reward` says; weights: (B,), of each image in every term. Returns the loss and its detached parts:
    `cross_entropy`, `context`, `policy`, `baseline`, `each_step` where it is in the loss, and the mean `reward`, the
    share of right answers.
    """
    logits, baselines, outcome = trajectory.class_logits, trajectory.baselines, correctness(trajectory, labels)
    if rewards is None:
        rewards = rewards_to_go(trajectory, labels) if config.reward == "probability" else outcome
    classes = cross_entropy(logits[:, -1], labels, weights)
    loss, context = classes, torch.zeros_like(classes)
    if context_network is not None:
        context = context_loss(trajectory.hiddens, logits, labels, context_network, config.context, weights)
        loss = loss + BETA1 * context
    glimpses, actions = trajectory.patch_entropies.shape[1], baselines.shape[1]
    first = glimpses - actions if config.entropy_patch == "after" else 0  # or the patches seen before acting
    entropies = trajectory.patch_entropies[:, first : first + actions]  # (B, A)
    objective = policy_objective(trajectory.log_probs, rewards, baselines, entropies, config.entropy, weights=weights)
    returns = rewards if rewards.ndim == 2 else rewards[:, None].expand_as(baselines)
    if config.entropy == "intent":
        returns = (entropies + ENTROPY_OFFSET) * returns
    regression = baseline_loss(baselines, returns, weights)
    loss = loss - config.beta2 * objective + regression  # Eq. 14
    parts = {"cross_entropy": classes, "context": context, "policy": objective, "baseline": regression}
    if config.each_step and logits.shape[1] > 1:
        parts["each_step"] = cross_entropy(logits[:, :-1], labels, weights)
        loss = loss + config.each_step * parts["each_step"]
    return loss, {name: part.detach() for name, part in parts.items()} | {"reward": outcome.float().mean()}


def returns_of(right: Tensor, counts: Tensor, reward: str) -> Tensor:
    """The return of the glimpses at each place of a number, (B, N) in [0, 1].

    right: (B, N) bool, whether the class at that place is right; counts: (B, N) bool, which places are no padding.
    "cumulative": a place is worth 1 while it and all before it are right; its return is what it and those after it are
    worth, over the number of places that count. "whole": 1 at each place where the whole number is right, else 0.
    """
    if reward == "whole":
        return (right | ~counts).all(1, keepdim=True).expand_as(right).to(torch.get_default_dtype())
    worth = (right & counts).to(torch.get_default_dtype()).cumprod(1)  # (B, N)
    return worth.flip(1).cumsum(1).flip(1) / counts.sum(1, keepdim=True)


def number_loss(trajectory, labels: Tensor, context_network, config) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 14 for a number: the sum over its digits and its end of `hybrid_loss`, each over its own glimpses and with
    its own label (ledger I), the mean over images. What lies behind the end adds nothing. trajectory: T glimpses and
    actions; labels: (B, N), N a divisor of T. Returns as `hybrid_loss`, `reward` the share of numbers wholly right."""
    places, counts = labels.shape[1], counting(labels)  # N, (B, N)
    # B N rollouts of T / N glimpses.
    digits = type(trajectory)(*(field.unflatten(1, (places, -1)).flatten(0, 1) for field in trajectory))
    right = digits.class_logits[:, -1].argmax(-1).view_as(labels) == labels  # (B, N)
    rewards = None if config.reward == "probability" else returns_of(right, counts, config.reward).flatten()
    weights = (counts * places).flatten()  # the mean over B N is then the sum over N, the mean over B
    loss, parts = hybrid_loss(digits, labels.flatten(), context_network, config, rewards, weights)
    return loss, parts | {"reward": (right | ~counts).all(1).float().mean()}


def length_and_digits_loss(heads, labels: Tensor) -> Tensor:
    """-log P(length) - sum over the digits that there are of log P(digit), the mean over images. heads: `length_logits`
    (B, 5) and `digit_logits` (B, 5, 10); labels: (B, 6)."""
    length = F.cross_entropy(heads.length_logits, lengths_of(labels) - 1)
    logits, digits = heads.digit_logits.flatten(0, 1), labels[:, :-1].flatten()
    return length + F.cross_entropy(logits, digits, ignore_index=TERMINAL, reduction="sum") / len(labels)


def q_loss(values: Tensor, actions: Tensor, rewards: Tensor, next_values: Tensor, gamma: float = GAMMA) -> Tensor:
    """Squared error of Q against its target (Eq. 9), the mean over images and levels.

    values: (B, L, A), Q of all regions at each level; actions: (B, L), the regions chosen; rewards: (B,), of the
    outcome; next_values: (B, L - 1), max_a Q(s_{l+1}, a) of the frozen network (ledger A3); gamma: in [0, 1].
    The target y (Eq. 8), a constant, is r at the last level, where the reward is paid, and gamma max_a Q(s_{l+1}, a)
    before it, where r = 0. So with one level neither gamma nor the frozen network enters (ledger A2).
    Raises ValueError for other shapes.
    """
    batch, levels = actions.shape
    if (values.shape[:2], rewards.shape, next_values.shape) != ((batch, levels), (batch,), (batch, levels - 1)):
        shapes = (tuple(t.shape) for t in (values, actions, rewards, next_values))
        raise ValueError("shapes differ: {}, {}, {}, {}".format(*shapes))
    chosen = values.gather(-1, actions[..., None])[..., 0]  # (B, L), Q(s_l, a_l)
    targets = torch.cat((gamma * next_values, rewards[:, None]), 1)  # (B, L), y_l of Eq. 8
    return F.mse_loss(chosen, targets.detach())  # Eq. 9
