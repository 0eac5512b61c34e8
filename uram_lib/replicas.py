"""Several seeds of one configuration trained side by side in one process.

Seeds differ in their weights, data order and draws, but not in what is computed. So their parameters are stacked along
a leading axis, and `torch.vmap` turns the step of one model into the step of all: an accelerator that one small model
leaves idle is filled, and the code of the model stays that of a single one. Each seed gets what it gets alone, up to
the rounding of differently ordered sums.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from .data.sequences import PLACES
from .experiments import Config
from .models import DRAM, ElevenLayerCNN, Unified, bottom_up
from .objectives import correctness, hybrid_loss, length_and_digits_loss, number_loss, q_loss


class Objective(nn.Module):
    """The loss of one batch as a module, so that it can be called as a function of the model's parameters."""

    def __init__(self, model: nn.Module, config: Config):
        super().__init__()
        self.model, self.config = model, config

    def forward(self, images: Tensor, labels: Tensor, *draws: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """images: (B, C, H, W); labels: (B,), or (B, 6) of numbers; draws: `training.draws_of` the model. Returns the
        loss and its detached parts, each a scalar."""
        if isinstance(self.model, ElevenLayerCNN):
            return length_and_digits_loss(self.model(images), labels)
        ram = bottom_up(self.model)
        if ram is None:
            logits = self.model(images)
            loss = F.cross_entropy(logits, labels)
            return loss, {"cross_entropy": loss.detach(), "reward": (logits.argmax(-1) == labels).float().mean()}
        c = self.config
        if isinstance(ram, DRAM):
            settings = (c.beta1, c.beta2, c.entropy, c.entropy_offset, c.reward)
            (noise,) = draws  # for all places, of which the longest number of a curriculum may leave some out
            noise = noise[:, : labels.shape[1] * (ram.glimpses // PLACES)]
            return number_loss(ram(images, noise), labels, ram.context_network, *settings)
        outcome = None
        if isinstance(self.model, Unified):
            trajectory, outcome = self.model(images, *draws)
        else:
            trajectory = self.model(images, *draws)
        loss, parts = hybrid_loss(
            trajectory, labels, ram.context_network, c.beta1, c.beta2, c.entropy, c.entropy_offset, c.context_form
        )
        if outcome is not None:
            rewards = correctness(trajectory, labels)
            q = q_loss(outcome.values, outcome.actions, rewards, outcome.next_values, c.gamma)
            loss, parts = loss + q, parts | {"q": q.detach()}
        return loss, parts


class Replicas:
    """The models of R seeds of `config`, on one device, and their Adam.

    models: R freshly made models of the same architecture. With R = 1 the step is the plain one; else the parameters
    of the models become views into stacked tensors (R, ...), so that each model always shows its current weights.
    """

    def __init__(self, models: Sequence[nn.Module], config: Config):
        self.models, self.config = list(models), config
        objectives = [Objective(model, config) for model in models]
        self.objective = objectives[0]
        self.parameters, self.buffers = dict(self.objective.named_parameters()), {}
        if len(self.models) > 1:
            self.parameters, self.buffers = stack_module_state(objectives)
            stacked = self.parameters | self.buffers
            for r, objective in enumerate(objectives):
                for name, tensor in (*objective.named_parameters(), *objective.named_buffers()):
                    tensor.data = stacked[name].data[r]
        some = next(iter(self.parameters.values()))
        # The step size is a tensor on the device, set by the loop, so that an accelerator need not be asked to wait.
        step_size = torch.tensor(config.learning_rate, device=some.device)
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=step_size, eps=config.adam_epsilon, fused=True)

    def loss(self, batches: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, dict[str, Tensor]]:
        """batches: for each seed its images, labels and draws. Returns losses (R,) and their parts, (R,) each."""
        if len(self.models) == 1:
            loss, parts = self.objective(*batches[0])
            return loss[None], {name: part[None] for name, part in parts.items()}

        def one(parameters: dict, buffers: dict, *batch: Tensor):
            return functional_call(self.objective, (parameters, buffers), batch)

        stacked = [torch.stack(tensors) for tensors in zip(*batches, strict=True)]
        return torch.vmap(one)(self.parameters, self.buffers, *stacked)

    def descend(self, losses: Tensor, learning_rate: float) -> None:
        """One step of Adam along the gradient of every seed's own loss, clipped, seed by seed, as configured."""
        self.optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()  # no parameter is shared, so the gradient of the sum is each seed's own
        if self.config.clip_norm:
            self.clip_gradients()
        self.optimizer.param_groups[0]["lr"].fill_(learning_rate)
        self.optimizer.step()

    def clip_gradients(self) -> None:
        """Scale the gradient of each seed down to the norm `clip_norm` where it is larger."""
        if len(self.models) == 1:
            nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip_norm)
            return
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]  # (R, ...)
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)  # (R,)
        scale = (self.config.clip_norm / (norms + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(scale.view(-1, *[1] * (gradient.ndim - 1)))

    def state(self, r: int) -> dict:
        """Weights and optimiser of seed number `r`, as copies: what it takes to go on, alone or in other company."""
        # A tensor without axes is Adam's count of steps, which all seeds share.
        own = lambda value: value if value.ndim == 0 or len(self.models) == 1 else value[r]  # noqa: E731
        moments = {name: self.optimizer.state[p] for name, p in self.parameters.items() if p in self.optimizer.state}
        return {
            "model": weights(self.models[r]),
            "optimizer": {name: {k: own(v).clone() for k, v in moment.items()} for name, moment in moments.items()},
        }

    def load(self, states: Sequence[dict]) -> None:
        """Take over the `state` of every seed. All must have made the same number of steps."""
        for model, state in zip(self.models, states, strict=True):
            model.load_state_dict(state["model"])
        together = lambda values: (  # noqa: E731
            values[0].clone() if values[0].ndim == 0 or len(values) == 1 else torch.stack(values)
        )
        for name in states[0]["optimizer"]:
            moments = [state["optimizer"][name] for state in states]
            self.optimizer.state[self.parameters[name]] = {
                key: together([moment[key] for moment in moments]) for key in moments[0]
            }


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies of a model's parameters and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
