"""A loss and a block of the user's own are tried before training."""

import copy

import torch

from cherimoya.config.schema import Choice
from cherimoya.errors import ConfigError
from cherimoya.losses import build_loss, logged_values, training_loss
from cherimoya.network import Cherimoya
from cherimoya.util.own_code import own_errors


def check_loss(chosen: Choice, model: Cherimoya, batch_size: int, length: int) -> None:
    """Raise ConfigError for a loss of the user's own that one cannot train with.

    Another one like it is tried on random values, with a copy of the model.
    """
    if chosen.is_ours:
        return
    model, device = copy.deepcopy(model), model.lw0.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
        with own_errors(f"loss.name={chosen.name}: its begin(model)"):
            loss = build_loss(chosen, model)
        tracks, groups = sum(model.signal_groups), len(model.signal_groups)
        logits = torch.randn(batch_size, tracks, length, device=device, requires_grad=True)
        log_counts = torch.randn(batch_size, groups, device=device, requires_grad=True)
        signal = torch.randint(9, logits.shape, device=device).float()
        named = f"loss.name={chosen.name}: {type(loss).__name__}"
        with own_errors(f"{named}.forward(model, logits, log_counts, signal)"):
            terms = training_loss(loss, model, logits, log_counts, signal)
            total = torch.stack([terms.total, terms.profile.sum(), terms.count.sum()])[0]
        if not total.requires_grad:
            raise ConfigError(
                f"{named}.forward returned an objective without a gradient. Work it out of logits "
                "and log_counts by torch's operations, without detach, item or no_grad."
            )
        with own_errors(f"{named}: the gradient of what forward returns"):
            total.backward()
        for p in model.parameters():  # which a step leaves with one each
            p.grad = torch.zeros_like(p) if p.grad is None and p.requires_grad else p.grad
        with own_errors(f"{named}.logged(model)"):
            logged_values(loss, model)
        with own_errors(f"{named}.end_epoch(model)"):
            loss.end_epoch(model)


def check_block(chosen: Choice, model: Cherimoya, in_window: int) -> None:
    """Raise ConfigError for a block of the user's own that does not do for windows of this length.

    It is tried with all its dilations, on zeros, in a copy of the model.
    """
    if chosen.is_ours:
        return
    named, device = f"model.blocks.name={chosen.name}", model.lw0.device
    X = torch.zeros(1, 4, in_window, device=device)
    controls = torch.zeros(1, model.n_control_tracks, in_window, device=device)
    tried = own_errors(f"{named}: the network on {in_window:,} bases")
    drawn = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with tried, drawn, torch.no_grad():
        copy.deepcopy(model)(X, controls if model.n_control_tracks else None)
