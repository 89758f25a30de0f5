"""Configurations that earlier releases saved, with the keys of today."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from cherimoya import registry
from cherimoya.config.train import MATRICES, OptimConfig

CHERI_MATRICES = "blocks.*.linear[12].weight"  # the pattern that meant what MATRICES means


def current(values: Any) -> Any:
    """A saved configuration of cherimoya-train with the keys of today.

    In earlier releases a group had the settings of all its options, the logger was one, and a
    block, an optimizer and its schedule had no name. What is no configuration is left as it is.
    """
    if not isinstance(values, Mapping):
        return values
    found = dict(values)
    if isinstance(loss := found.get("loss"), Mapping):
        name = str(loss.get("name"))
        if name in registry.GROUPS["loss"].ours:
            own = {f.name for f in fields(registry.settings_of("loss", name))}
            found["loss"] = {k: v for k, v in loss.items() if k == "name" or k in own}
    model = found.get("model")
    if isinstance(model, Mapping) and isinstance(blocks := model.get("blocks"), Mapping):
        found["model"] = {**model, "blocks": {"name": "cheri", **blocks}}
    if isinstance(optim := found.get("optim"), Mapping):
        ours = registry.GROUPS["optim"].ours  # null where they were not used
        used = {k: v for k, v in optim.items() if v is not None or k not in ours}
        own = {f.name for f in fields(OptimConfig)}  # its other keys are optimizers
        found["optim"] = {k: v if k in own else _named(k, v) for k, v in used.items()}
        routes = optim.get("routing") or []
        found["optim"]["routing"] = [
            {**route, "pattern": MATRICES} if route.get("pattern") == CHERI_MATRICES else route
            for route in routes
        ]
    logger = found.get("logger")
    if isinstance(logger, Mapping) and isinstance(logger.get("name"), str):
        found["logger"] = {} if logger["name"] == "none" else {logger["name"]: dict(logger)}
    found.setdefault("metrics", {})
    return found


def _named(key: str, value: Any) -> Any:
    """An optimizer's settings, with its name and schedule."""
    if not isinstance(value, Mapping):
        return value
    schedule = "constant" if key == "sgd" else "cosine"
    return {"name": key, "schedule": schedule, **value}
