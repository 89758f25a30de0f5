"""The Cherimoya network: DNA in, a base-resolution profile and log counts out."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cherimoya.blocks import chosen_block, described_block, made_blocks, other_length
from cherimoya.config.schema import Choice
from cherimoya.config.train import ModelConfig
from cherimoya.errors import CherimoyaError, ConfigError, OwnError
from cherimoya.ops.counts.op import counts
from cherimoya.ops.heads.op import heads
from cherimoya.ops.reference import profile_head
from cherimoya.ops.stem.op import stem
from cherimoya.util.model_file import read_model_file

STEM_KERNEL = 21
SPARE_CONTEXT = 46  # bases that the default trimming keeps beyond the blocks' own reach
UPSTREAM_PROFILE_KERNEL = 75


class Cherimoya(nn.Module):
    """A stem, `n_layers` blocks with dilations 1, 2, 4, ..., and two heads.

    Parameters
    ----------
    n_filters : int
        Channels C of the stem and of every block.
    n_layers : int
        Number of blocks; block i has dilation 2**i.
    expansion, residual_scale
        Of the Cheri Block, see CheriBlock, where `block` is not given.
    signal_groups : sequence of int
        Channels of each group of tracks that share one multinomial and one count: [1] is
        unstranded, [2] a stranded pair, [1, 2] both.
    n_control_tracks : int
        Control tracks that both heads read.
    profile_kernel_size : int
        Odd kernel of the profile head; upstream 0.1 uses 1, upstream 0.3 uses 75.
    trimming : int, optional
        Bases cut from each side; by default 46 + the sum of the dilations (2114 to 1000 bp).
    block : Choice or mapping, optional
        Another block: its name, such as bpnet or module:Class, and its settings.
    bias_model : Cherimoya, optional
        A trained model of what the enzyme prefers, of the same signal groups, which is kept as it
        is. Its logits are added, and its counts: log(exp(own) + exp(its)) of the log counts, as in
        ChromBPNet (Pampari et al. 2024). Without it (`with_bias = False`) the model answers
        corrected.

    Raises
    ------
    ConfigError
        If `block` names no block, or its settings are wrong.
    ValueError
        If a size is out of range or `profile_kernel_size` is even.
    """

    multiprocessors_taken = 0  # of the GPU, by what runs beside the stem's backward

    def __init__(
        self,
        n_filters: int = 96,
        n_layers: int = 9,
        expansion: int = 2,
        residual_scale: float = 0.15,
        signal_groups: Sequence[int] = (1,),
        n_control_tracks: int = 0,
        profile_kernel_size: int = 1,
        trimming: int | None = None,
        block: Choice | Mapping[str, Any] | None = None,
        bias_model: "Cherimoya | None" = None,
    ) -> None:
        super().__init__()
        usual = {"name": "cheri", "expansion": expansion, "residual_scale": residual_scale}
        block = chosen_block(usual if block is None else block, n_filters)
        groups = [int(g) for g in signal_groups]
        _check_sizes(n_layers, n_control_tracks, groups, profile_kernel_size, trimming)
        self.signal_groups = groups
        self.n_control_tracks = n_control_tracks
        dilations = [2**i for i in range(n_layers)]
        self.trimming = SPARE_CONTEXT + sum(dilations) if trimming is None else trimming
        self.lw0 = nn.Parameter(torch.ones(len(groups)))
        self.lw1 = nn.Parameter(torch.ones(len(groups)))
        self.iconv = nn.Conv1d(4, n_filters, STEM_KERNEL, padding=STEM_KERNEL // 2)
        self.blocks = made_blocks(block, n_filters, dilations)
        self.fconv = nn.Conv1d(
            n_filters + n_control_tracks, sum(groups), profile_kernel_size,
            padding=profile_kernel_size // 2,
        )  # fmt: skip
        self.linear = nn.Linear(n_filters + (n_control_tracks > 0), len(groups))
        for layer in (self.iconv, self.fconv, self.linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.config: dict[str, Any] = {
            "n_filters": n_filters,
            "n_layers": n_layers,
            **described_block(block),
            "signal_groups": groups,
            "n_control_tracks": n_control_tracks,
            "profile_kernel_size": profile_kernel_size,
            "trimming": self.trimming,
        }
        self.with_bias = bias_model is not None
        self.in_window: int | None = None  # bases of the training's sequences, see `cherimoya.load`
        self.bias_model = bias_model
        if bias_model is not None:
            self._check_bias_model(bias_model)
            bias_model.requires_grad_(False).eval()
            self.config["bias_model"] = bias_model.config

    @property
    def receptive_field(self) -> int:
        """Input bases that the convolutions of one output position read."""
        reach = STEM_KERNEL // 2
        reach += sum(getattr(block, "reach", 2**i) for i, block in enumerate(self.blocks))
        return 2 * (reach + self.config["profile_kernel_size"] // 2) + 1

    def forward(self, X: Tensor, X_ctl: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Predict profile logits and log counts.

        Parameters
        ----------
        X : Tensor (N, 4, L)
            One-hot sequence; an N is a column of zeros.
        X_ctl : Tensor (N, n_control_tracks, L), optional
            Control signal, required when the model has control tracks.

        Returns
        -------
        tuple of Tensor
            Profile logits (N, sum(signal_groups), L - 2 * trimming), to be normalised over each
            group's channels and positions together, and log(1 + counts) (N, len(signal_groups)).

        Raises
        ------
        ValueError
            If a shape does not fit the model.
        OwnError
            If a block of the user's own changes the length.
        """
        self._check_inputs(X, X_ctl)
        logits, log_counts = self._own(X, X_ctl)
        if self.bias_model is None or not self.with_bias:
            return logits, log_counts
        cut = self.trimming - self.bias_model.trimming
        inner = slice(cut, X.shape[2] - cut)
        with torch.set_grad_enabled(torch.is_grad_enabled() and X.requires_grad):
            bias_logits, bias_counts = self.bias_model(X[:, :, inner].contiguous())
        return logits + bias_logits, torch.logaddexp(log_counts, bias_counts)

    def _own(self, X: Tensor, X_ctl: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `forward`, without the bias model."""
        # Ends that no head reads are left out of the last block already.
        unread = max(self.trimming - self.config["profile_kernel_size"] // 2, 0)
        x = stem(X, self.iconv.weight, self.iconv.bias, self.multiprocessors_taken)  # type: ignore[arg-type]
        for block in self.blocks[:-1]:
            x = block(x)  # (N, L, C)
        x = self.blocks[-1](x, trim=unread)  # (N, L - 2 unread, C)
        if x.shape[1] != X.shape[2] - 2 * unread:
            raise OwnError(other_length(self.config, X.shape[2], x.shape[1] + 2 * unread))
        return self.apply_heads(x, X_ctl, unread)

    def apply_heads(self, x: Tensor, X_ctl: Tensor | None, unread: int) -> tuple[Tensor, Tensor]:
        """Both heads on the last block's output x (N, L - 2 unread, C); X_ctl (N, controls, L)."""
        cut = self.trimming - unread
        weight = self.fconv.weight[:, : x.shape[2]] if self.n_control_tracks else self.fconv.weight
        logits, features = heads(x, weight, self.fconv.bias, cut)  # type: ignore[arg-type]
        if X_ctl is not None:
            X_ctl = X_ctl[:, :, unread : X_ctl.shape[2] - unread]
            logits = logits + self._profile_of_controls(X_ctl, cut)
            total = X_ctl[:, :, cut : X_ctl.shape[2] - cut].sum(dim=(1, 2), dtype=features.dtype)
            features = torch.cat([features, torch.log1p(total)[:, None]], dim=1)
        with torch.autocast(x.device.type, enabled=False):
            return logits, counts(features, self.linear.weight, self.linear.bias, x.dtype)

    def _profile_of_controls(self, X_ctl: Tensor, cut: int) -> Tensor:
        """What the controls (N, controls, L') add to the logits (N, tracks, L' - 2 cut)."""
        weight = self.fconv.weight[:, -self.n_control_tracks :]
        logits = profile_head(X_ctl.transpose(1, 2), weight, None)
        return logits[:, :, cut : logits.shape[2] - cut]

    def _check_bias_model(self, bias_model: "Cherimoya") -> None:
        """Raise ValueError for a bias model that does not go with this one."""
        theirs, own = bias_model.signal_groups, self.signal_groups
        if theirs != own:
            raise ValueError(f"its signal groups are {theirs}, and here they are {own}")
        if bias_model.n_control_tracks:
            raise ValueError(f"it reads {bias_model.n_control_tracks} control tracks")
        if bias_model.bias_model is not None:
            raise ValueError("it has a bias model itself")
        if bias_model.trimming > self.trimming:
            raise ValueError(
                f"it trims {bias_model.trimming} bases from each side, and here there are "
                f"{self.trimming}: it needs a longer window"
            )

    def train(self, mode: bool = True) -> "Cherimoya":
        """As of any module, but for the bias model, which always evaluates."""
        super().train(mode)
        if self.bias_model is not None:
            self.bias_model.eval()
        return self

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The named parameters without those of the bias model."""
        for name, parameter in self.named_parameters():
            if not name.startswith("bias_model."):
                yield name, parameter

    def _check_inputs(self, X: Tensor, X_ctl: Tensor | None) -> None:
        if X.ndim != 3 or X.shape[1] != 4 or X.shape[2] <= 2 * self.trimming:
            raise ValueError(
                f"X has shape {tuple(X.shape)}: expected (N, 4, L) with L > {2 * self.trimming}, "
                f"twice the model's trimming"
            )
        expected = (X.shape[0], self.n_control_tracks, X.shape[2])
        if self.n_control_tracks and (X_ctl is None or X_ctl.shape != expected):
            got = "None" if X_ctl is None else tuple(X_ctl.shape)
            raise ValueError(f"X_ctl is {got}: this model needs controls of shape {expected}")
        if not self.n_control_tracks and X_ctl is not None:
            raise ValueError("X_ctl is given, but this model has no control tracks")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `{"config", "state_dict"}`, which `Cherimoya.load` reads back."""
        torch.save({"config": self.config, "state_dict": self.state_dict()}, path)

    def export_upstream(self, path: str | os.PathLike[str]) -> None:
        """Write a file that upstream 0.3's `Cherimoya.load` reads, without a bias model.

        Raises
        ------
        ValueError
            If the profile kernel is not upstream's 75, or the block is not the Cheri Block.
        """
        if "block" in self.config:
            raise ValueError(f"block={self.config['block']['name']}: upstream has the Cheri Block")
        if self.config["profile_kernel_size"] != UPSTREAM_PROFILE_KERNEL:
            raise ValueError(
                f"profile_kernel_size={self.config['profile_kernel_size']}: upstream 0.3 reads "
                f"only {UPSTREAM_PROFILE_KERNEL}. Train with experiment=upstream_0_3."
            )
        ours = ("profile_kernel_size", "bias_model")
        config = {k: v for k, v in self.config.items() if k not in ours}
        config["name"] = f"cherimoya.{config['n_filters']}.{config['n_layers']}"
        config["verbose"] = False
        state = {k: v for k, v in self.state_dict().items() if not k.startswith("bias_model.")}
        torch.save({"config": config, "state_dict": state}, path)

    @classmethod
    def from_upstream(
        cls, path: str | os.PathLike[str], device: str | torch.device = "cpu"
    ) -> "Cherimoya":
        """The same as `load`, which reads upstream's files too: the inverse of export_upstream."""
        return cls.load(path, device)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        device: str | torch.device = "cpu",
        bias: bool | None = False,
    ) -> "Cherimoya":
        """Read a checkpoint of this package, of upstream 0.1.0 or of upstream 0.2 and 0.3.

        `bias` says whether a model with a bias model answers with it; None: if it has one.

        Raises
        ------
        CherimoyaError
            If the file is missing, damaged, or not such a checkpoint, if the block that it
            names cannot be found here, or with bias=True if it has no bias model.
        """
        if bias is not None and not isinstance(bias, bool):
            raise TypeError(f"bias is {bias!r}: expected True, False or None")
        config, state = read_model_file(Path(path))
        try:
            model = cls(**_own_config(config, state))
            model.load_state_dict(state)
        except ConfigError as error:
            raise CherimoyaError(f"{path} needs its block: {error}") from error
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CherimoyaError(f"{path} does not hold a Cherimoya model: {error}") from error
        if bias and model.bias_model is None:
            raise CherimoyaError(
                f"bias=true, but {path} was trained without a bias model (model.bias). Leave bias "
                "out."
            )
        model.with_bias = model.bias_model is not None and bias is not False
        return model.to(device)


def build_model(
    config: ModelConfig,
    signal_groups: Sequence[int],
    n_control_tracks: int,
    trimming: int,
    bias_model: Cherimoya | None = None,
) -> Cherimoya:
    """The network of a training run; groups, controls and trimming come from its data."""
    return Cherimoya(
        n_filters=config.n_filters,
        n_layers=config.n_layers,
        block=config.blocks,
        signal_groups=signal_groups,
        n_control_tracks=n_control_tracks,
        profile_kernel_size=config.profile_kernel_size,
        trimming=trimming,
        bias_model=bias_model,
    )


def _check_sizes(
    n_layers: int,
    n_control_tracks: int,
    groups: Sequence[int],
    profile_kernel_size: int,
    trimming: int | None,
) -> None:
    """Raise ValueError for a size that no network has."""
    if n_layers < 1 or n_control_tracks < 0 or not groups or min(groups) < 1:
        raise ValueError(
            f"n_layers={n_layers}, n_control_tracks={n_control_tracks}, "
            f"signal_groups={groups}: need at least one layer and one channel a group"
        )
    if profile_kernel_size < 1 or profile_kernel_size % 2 == 0:
        raise ValueError(f"profile_kernel_size={profile_kernel_size}: must be odd")
    if trimming is not None and trimming < 0:
        raise ValueError(f"trimming={trimming}: must not be negative")


def _own_config(config: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Any]:
    """Our constructor's arguments from the configuration of any supported checkpoint.

    Upstream 0.1.0 has `n_outputs` with one joint multinomial and, with `single_count_output`,
    one count: a single signal group. No upstream file names the profile kernel's size.
    """
    own = {k: v for k, v in config.items() if k not in ("name", "verbose")}
    if "n_outputs" in own:
        n_outputs = own.pop("n_outputs")
        if not own.pop("single_count_output", True) and n_outputs > 1:
            raise ValueError("single_count_output=False has no equal here: counts share no group")
        own["signal_groups"] = [n_outputs]
    own["profile_kernel_size"] = state["fconv.weight"].shape[-1]
    if "bias_model" in own:
        own["bias_model"] = Cherimoya(**own["bias_model"])
    return own
