"""Which parameter goes to which optimizer: ordered patterns, the first match wins."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from cherimoya.config.train import MATRICES, OptimConfig, RouteConfig
from cherimoya.errors import ConfigError
from cherimoya.optim.schedule import Schedule


def block_matrices(model: nn.Module) -> set[str]:
    """Names of the parameters that the model's blocks say are matrices of a product."""
    return {
        f"blocks.{i}.{name}"
        for i, block in enumerate(getattr(model, "blocks", []))
        for name in getattr(block, "matrices", ())
    }


def route(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    routes: Sequence[RouteConfig],
    matrices: Collection[str] = (),
) -> dict[str, list[str]]:
    """Parameter names by optimizer, in the model's order.

    Parameters that take no gradient count as claimed but go nowhere. The pattern `matrices`
    stands for the names in `matrices`, of which there may be none.

    Raises
    ------
    ConfigError
        If a pattern is the first match of no parameter, or a parameter matches no pattern.
    """
    chosen: dict[str, list[str]] = {r.optimizer: [] for r in routes}
    used = [r.pattern == MATRICES and not matrices for r in routes]
    for name, parameter in named_parameters:
        for i, r in enumerate(routes):
            if name in matrices if r.pattern == MATRICES else fnmatchcase(name, r.pattern):
                used[i] = True
                if parameter.requires_grad:
                    chosen[r.optimizer].append(name)
                break
        else:
            raise ConfigError(
                f"optim.routing claims no optimizer for parameter {name}. "
                'Add a last route such as {pattern: "*", optimizer: adamw}.'
            )
    for i, r in enumerate(routes):
        if not used[i]:
            raise ConfigError(
                f"optim.routing pattern {r.pattern!r} is the first match of no parameter. "
                "Correct it, move it up, or remove it."
            )
    return {optimizer: names for optimizer, names in chosen.items() if names}


def scaled(table: Mapping[str, Sequence[str]], scales: Mapping[str, float]) -> dict[str, list[str]]:
    """The routing table with parameters whose learning rate is scaled apart: adamw, adamw_x0.1.

    scales: shell-style patterns of parameters, of which the first match counts, and factors

    Raises ConfigError for a pattern that is the first match of no trained parameter.
    """
    found: dict[str, list[str]] = {}
    used = dict.fromkeys(scales, False)
    for optimizer, names in table.items():
        for name in names:
            pattern = next((p for p in scales if fnmatchcase(name, p)), None)
            scale = 1.0 if pattern is None else scales[pattern]
            used |= {} if pattern is None else {pattern: True}
            found.setdefault(optimizer if scale == 1 else f"{optimizer}_x{scale:g}", []).append(
                name
            )
    for pattern in (p for p, is_used in used.items() if not is_used):
        raise ConfigError(
            f"optim.lr_scale pattern {pattern!r} is the first match of no parameter that is "
            "trained. Correct it, move it up, or remove it."
        )
    return found


def _unscaled(name: str, config: OptimConfig) -> tuple[str, float]:
    """The optimizer's name in `config`, and the factor of its learning rate, see `scaled`."""
    if name in config.targets:
        return name, 1.0
    target, _, scale = name.rpartition("_x")
    return target, float(scale)


def build_optimizers(
    parameters: Mapping[str, nn.Parameter], config: OptimConfig, matrices: Collection[str] = ()
) -> tuple[dict[str, torch.optim.Optimizer], dict[str, list[str]]]:
    """The optimizers by name, and the routing table they follow; `matrices` as of `route`."""
    table = scaled(route(parameters.items(), config.routing, matrices), config.lr_scale or {})
    optimizers: dict[str, torch.optim.Optimizer] = {}
    for name, members in table.items():
        target = config.targets[_unscaled(name, config)[0]]
        optimizer = target.make([parameters[m] for m in members])
        flat = [m for m in members if parameters[m].ndim != 2]
        if flat and getattr(optimizer, "takes_matrices", False):
            raise ConfigError(f"optim.routing sends {flat[0]} to {name}, which takes matrices only")
        optimizers[name] = optimizer
    return optimizers, table


def build_schedules(
    config: OptimConfig, names: Iterable[str], steps_per_epoch: int, total_steps: int
) -> dict[str, Schedule]:
    """The learning-rate schedule of each optimizer."""
    found = {}
    for name in names:
        target, scale = _unscaled(name, config)
        settings = config.targets[target].settings
        found[name] = Schedule(
            base=settings.lr * scale,
            warmup_steps=round(config.warmup_epochs * steps_per_epoch),
            total_steps=total_steps,
            start=config.warmup_start,
            min_lr=config.min_lr * scale,
            shape=getattr(settings, "schedule", "cosine"),
        )
    return found
