"""How many loci each filter removed."""

import numpy as np


class FilterReport:
    """Rows of (what, removed, left), starting from `count` loci described by `what`."""

    def __init__(self, what: str, count: int) -> None:
        self.rows: list[tuple[str, int, int]] = [(what, 0, count)]

    def keep(self, reason: str, mask: np.ndarray) -> np.ndarray:
        """Record that the loci where `mask` (n,) is false go for `reason`; returns the mask."""
        self.rows.append((reason, int((~mask).sum()), int(mask.sum())))
        return mask

    def table(self) -> str:
        """The rows as aligned text."""
        width = max(len(what) for what, _, _ in self.rows)
        lines = [f"{'loci':<{width}}  {'removed':>11}  {'left':>11}"]
        lines += [f"{what:<{width}}  {gone:>11,}  {left:>11,}" for what, gone, left in self.rows]
        return "\n".join(lines)
