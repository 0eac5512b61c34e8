"""What is minimised: REINFORCE with a baseline (Eq. 4), the entropy constraint (12-13), the context constraint (11)
and their sum, the hybrid loss (14), for the bottom-up model; the Q loss (8-9) for the top-down model. Every loss is a
scalar to be minimised; rewards are 0 or 1."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .models.ram import Trajectory

ENTROPY_FORMS = ("none", "literal", "intent")
CONTEXT_FORMS = ("attended", "detached", "uniform", "each-step")


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
) -> Tensor:
    """J of Eq. 12, whose gradient is Eq. 13; with `entropy="none"` that of Eq. 4. To be maximised.

    log_probs, baselines: (B, A) for A actions; rewards: (B,), R_T of the whole sequence;
    patch_entropies: (B, A), bits, of the patch that each action leads to (ledger D2);
    entropy_offset: lambda. Forms: "literal" weights the advantage, (H + lambda)(R - b), as printed;
    "intent" weights the reward, (H + lambda) R - b, which does pull towards rich patches (ledger D3).
    Returns the mean over the batch of the sum over actions. Raises ValueError on an unknown form or other shapes.
    """
    if entropy not in ENTROPY_FORMS:
        raise ValueError(f"unknown entropy form {entropy!r}; one of: {', '.join(ENTROPY_FORMS)}")
    if log_probs.shape != baselines.shape or rewards.shape != log_probs.shape[:1]:
        raise ValueError(f"shapes differ: {tuple(log_probs.shape)}, {tuple(baselines.shape)}, {tuple(rewards.shape)}")
    reward = rewards[:, None]  # (B, 1), never (B,): (B,) against (B, A) would broadcast over actions
    baselines = baselines.detach()
    if entropy == "none":
        advantage = reward - baselines  # (B, A)
    elif entropy == "literal":
        advantage = (patch_entropies + entropy_offset) * (reward - baselines)
    else:
        advantage = (patch_entropies + entropy_offset) * reward - baselines
    return (log_probs * advantage.detach()).sum(1).mean()


def baseline_loss(baselines: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of b against the return that it predicts. baselines, targets: (B, A)."""
    return F.mse_loss(baselines, targets.detach()) if baselines.numel() else baselines.sum()


def context_loss(
    hiddens: Tensor, class_logits: Tensor, labels: Tensor, context_network: nn.Module, form: str = "attended"
) -> Tensor:
    """Cross entropy of the class predicted from the attended context (Eq. 11), or a control of it (ledger K3).

    hiddens: (B, T, D) core states; class_logits: (B, T, K); labels: (B,) in [0, K).
    Forms: "attended", the weights being alpha_{t,y}; "detached", the same without a gradient through them; "uniform",
    the weights being 1 / T; "each-step", no context at all: the mean cross entropy of the T predictions alpha_t.
    Returns a scalar. Uses the true label, so it is a training loss and never a prediction (ledger K1).
    Raises ValueError on an unknown form.
    """
    if form not in CONTEXT_FORMS:
        raise ValueError(f"unknown context form {form!r}; one of: {', '.join(CONTEXT_FORMS)}")
    steps = hiddens.shape[1]
    if form == "each-step":
        return F.cross_entropy(class_logits.flatten(0, 1), labels.repeat_interleave(steps))
    if form == "uniform":
        return F.cross_entropy(context_network(hiddens.mean(1)), labels)
    weights = class_logits.softmax(-1).gather(-1, labels[:, None, None].expand(-1, steps, 1))  # (B, T, 1)
    if form == "detached":
        weights = weights.detach()
    context = (weights * hiddens).sum(1)  # (B, D)
    return F.cross_entropy(context_network(context), labels)


def hybrid_loss(
    trajectory: Trajectory,
    labels: Tensor,
    context_network: nn.Module | None,
    beta1: float,
    beta2: float,
    entropy: str,
    entropy_offset: float,
    context_form: str = "attended",
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of Eq. 14: -y log alpha_T - beta1 y log z - beta2 J, plus the baseline's regression.

    labels: (B,). J enters with a minus sign: the printed plus would lower the reward (ledger D8).
    `context_network=None` leaves out the beta1 term; `context_form` is that of `context_loss`. Returns the loss and its
    detached parts, each a scalar: `cross_entropy`, `context`, `policy`, `baseline`, and the mean `reward`.
    """
    last = trajectory.class_logits[:, -1]  # (B, K)
    rewards = correctness(trajectory, labels)  # (B,)
    cross_entropy = F.cross_entropy(last, labels)
    context = (
        context_loss(trajectory.hiddens, trajectory.class_logits, labels, context_network, context_form)
        if context_network is not None
        else torch.zeros_like(cross_entropy)
    )
    entropies = trajectory.patch_entropies[:, 1:]  # (B, T - 1): the patches that the actions led to
    objective = policy_objective(
        trajectory.log_probs, rewards, trajectory.baselines, entropies, entropy, entropy_offset
    )
    returns = rewards[:, None].expand_as(trajectory.baselines)
    if entropy == "intent":
        returns = (entropies + entropy_offset) * returns
    regression = baseline_loss(trajectory.baselines, returns)
    loss = cross_entropy + beta1 * context - beta2 * objective + regression
    parts = {"cross_entropy": cross_entropy, "context": context, "policy": objective, "baseline": regression}
    return loss, {name: part.detach() for name, part in parts.items()} | {"reward": rewards.mean()}


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
