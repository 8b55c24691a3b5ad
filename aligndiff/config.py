"""Every choice AlignDiff leaves open, as one field each. Defaults are the `paper` variant; RELEASED is the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from harness.settings import from_mapping, require

POSITIVE = (
    "embedding_dim",
    "max_len",
    "num_blocks",
    "num_heads",
    "batch_size",
    "guidance_heads",
    "guidance_expansion",
    "num_steps",
    "energy_layers",
    "energy_expansion",
    "correction_steps",
    "eta_epochs",
    "decay_epochs",
    "slices",
)
NOT_NEGATIVE = (
    "learning_rate",
    "weight_decay",
    "decay_factor",
    "embedding_std",
    "position_std",
    "guidance_weight",
    "gradient_penalty",
    "eta",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Defaults read the printed equations. "Ours" marks a choice that the paper does not make."""

    variant: Literal["paper", "released"] = "paper"  # released: start from RELEASED below instead of these defaults

    # Sizes and optimiser: section 4.1 of the paper.
    embedding_dim: int = 128
    max_len: int = 50
    num_blocks: int = 4
    num_heads: int = 4  # of the predictor; ours, as DiffuRec
    dropout: float = 0.1  # printed range 0.1 to 0.3
    embedding_dropout: float = 0.3  # as DiffuRec and the released code
    batch_size: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    decay_epochs: int | None = 100  # learning rate x decay_factor every so many epochs; as DiffuRec and released
    decay_factor: float = 0.1  # as DiffuRec and released
    embedding_std: float = 1.0  # items at the start; ours, as DiffuRec
    position_std: float = 1.0  # positions of eq 1 at the start; ours, as released
    block_init: Literal["xavier_normal", "torch"] = "xavier_normal"  # output and feed-forward weights; as DiffuRec

    # Multi-level condition guidance, eqs 1 to 4.
    guidance: Literal["orthogonal", "ordinary", "none"] = "orthogonal"  # ordinary: released attention; none: w/o ML
    guidance_heads: int = 4  # h of eq 3; ours
    guidance_bias: bool = False  # of Q, K and V; eq 2 has none
    guidance_expansion: int = 1  # inner width of eq 4 in units of d; ours, as released
    # Gain of the last LayerNorm, and std of the null vector, at the start; OURS: with 1 a slow start from DiffuRec's
    # item vectors, seen by hand.
    guidance_gain: float = 0.1
    orthogonal_map: Literal["cayley", "matrix_exp"] = "cayley"  # how U and V stay orthogonal; ours
    guidance_index: Literal["last", "length"] = "last"  # which position is h; length: index len - 1 of left-padded rows
    guidance_keys: Literal["real", "all"] = "real"  # whether padding can be read; the paper is silent
    null_probability: float = 0.1  # p_uncond of classifier-free training; released value, not printed
    guidance_weight: float = 0.3  # w: 0.3 on Beauty and Toys, 0.1 on ML-1M
    null_branch: Literal["learned", "absent"] = "learned"  # unconditional pass: learned null vector, or no h at all
    guide_on: Literal["output", "hidden"] = "output"  # (1 + w) f - w f_null after or before the final LayerNorm

    # Forward diffusion, eqs 5 and 6.
    diffusion: bool = True  # False: one forward pass without x_t and d_t (control)
    num_steps: int = 32  # T; released value, not printed
    schedule: Literal["paper", "trunc_lin"] = "paper"
    beta_min: float = 0.1  # of the paper's schedule only, as the next two
    beta_max: float = 0.9
    tau: float = 0.8  # in units of T
    alpha_0: float | None = None  # extra step onto the target embedding; None: 1 - beta_1 / T, ours; 1: no such step

    # Denoising predictor, eq 7.
    mask: Literal["keys", "queries"] = "keys"  # hide padding keys, or flatten padded query rows as DiffuRec does
    nu: float = 0.05  # "noise scale", printed as best
    nu_reading: Literal["gamma", "delta"] = "gamma"  # nu is in no equation: gamma of eq 8, or delta of lambda
    delta: float = 0.001  # lambda ~ N(delta, delta) unless nu is delta; released value
    gamma: float = 0.1  # beta' = gamma beta in eq 8 unless nu is gamma; released value
    lambda_spread: Literal["std", "variance"] = "std"  # what the second delta is; std in DiffuRec and released

    # Energy function and alignment, eqs 8 to 10 and 13.
    energy: Literal["mlp", "transformer", "none"] = "mlp"  # none: w/o EN
    energy_layers: int = 3  # linear layers of the MLP; Table 4 has 1, 3, 6
    energy_expansion: int = 2  # width in units of d, eq 10
    energy_dropout: float = 0.1
    energy_activation: Literal["gelu", "elu_gelu"] = "gelu"  # elu_gelu: ELU and dropout first, then GELU without
    energy_init: Literal["torch", "xavier_uniform"] = "torch"
    alignment: Literal["score_matching", "released", "wgan_gp", "adversarial"] = "score_matching"  # eq 13; Table 7
    sigma2_floor: float = 1e-4  # least sigma_s^2 that eq 13 divides by; ours
    gradient_penalty: float = 10.0  # of wgan_gp; ours
    eta: float = 0.01  # weight of the alignment term, eq 14
    eta_rule: Literal["constant", "adaptive"] = "constant"
    eta_epochs: int = 20  # adaptive: least epochs between two changes; the released code validates every 20
    padding_class: bool = False  # whether padding is a class of the softmax

    # Inference, eq 11. Nothing below changes a weight.
    reverse_variance: Literal["posterior", "beta"] = "posterior"  # noise sqrt(beta~_t); eq 11 prints beta~_t
    correction: float = 0.01  # Omega
    correction_steps: int = 1  # corrections per application, Table 6
    correction_at: Literal["every_step", "final"] = "every_step"  # eq 11, or the text around it
    correction_sign: Literal["minus", "plus"] = "minus"  # plus: control
    guidance_of: Literal["self", "another"] = "self"  # another: h of another user (control)
    history_order: Literal["kept", "shuffled"] = "kept"  # shuffled: items of the history in random order (control)

    # Speed; on a CPU other groups mean other dropout draws.
    slices: int | None = None  # groups of similar length per training batch; None: tiles on a CPU, 1 on a GPU

    def __post_init__(self) -> None:
        for name in POSITIVE:
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "1 or more")
        dim = self.embedding_dim
        require(dim % 2 == 0, "embedding_dim", dim, "even numbers")
        for name in ("num_heads", "guidance_heads"):
            require(dim % getattr(self, name) == 0, name, getattr(self, name), "divisors of embedding_dim")
        for name in ("dropout", "embedding_dropout", "energy_dropout"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "0 up to but not including 1")
        for name in NOT_NEGATIVE:
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("beta_min", "beta_max"):
            require(0 < getattr(self, name) < 1, name, getattr(self, name), "between 0 and 1")
        require(0 <= self.null_probability <= 1, "null_probability", self.null_probability, "0 to 1")
        require(0 < self.tau <= 1, "tau", self.tau, "above 0 up to 1")
        require(self.alpha_0 is None or 0 < self.alpha_0 <= 1, "alpha_0", self.alpha_0, "null or above 0 up to 1")
        require(0 < self.energy_gamma <= 1, "nu or gamma", self.energy_gamma, "above 0 up to 1")
        require(self.lambda_mean >= 0, "nu or delta", self.lambda_mean, "0 or more")
        require(self.sigma2_floor > 0, "sigma2_floor", self.sigma2_floor, "above 0")
        require(self.correction >= 0, "correction", self.correction, "0 or more; turn it with correction_sign")

    @property
    def energy_gamma(self) -> float:
        """Noise of y_s relative to x_t, eq 8."""
        return self.nu if self.nu_reading == "gamma" else self.gamma

    @property
    def lambda_mean(self) -> float:
        return self.nu if self.nu_reading == "delta" else self.delta

    @property
    def lambda_std(self) -> float:
        return self.lambda_mean if self.lambda_spread == "std" else self.lambda_mean**0.5

    @property
    def reads_padding(self) -> bool:
        """Whether the amount of padding changes the result, so that windows must always be max_len wide."""
        padded_guidance = self.guidance != "none" and (self.guidance_index == "length" or self.guidance_keys == "all")
        return self.mask == "queries" or padded_guidance


# What the released code does (ZhuYiZ-1205/AlignDiff e19f279), its defects included; each entry can be mended alone.
RELEASED: Final[dict[str, Any]] = {
    "guidance": "ordinary",
    "guidance_bias": True,
    "guidance_heads": 1,  # main.py num_heads
    "guidance_gain": 1.0,  # torch's LayerNorm
    "guidance_index": "length",  # defect: index len - 1 of a left-padded row, a padding position for 25 items or fewer
    "guidance_keys": "all",  # defect: its key mask looks for features that sum to 0, which padding rows do not
    "null_branch": "absent",  # defect: the null vector is learned but never used at inference
    "guide_on": "hidden",
    "schedule": "trunc_lin",
    "alpha_0": 1.0,
    "mask": "queries",  # as DiffuRec
    "nu": 0.1,  # main.py scale
    "energy_layers": 2,  # main.py says 1, its constructor then builds two linear layers
    "energy_dropout": 0.3,
    "energy_activation": "elu_gelu",
    "energy_init": "xavier_uniform",
    "alignment": "released",  # defect: not eq 13, and its gradient points to y_s
    "eta_rule": "adaptive",
    "padding_class": True,  # defect
    "reverse_variance": "beta",
    "correction": 0.1,  # defect: a literal, the option alpha is never read
}


def read_config(settings: Mapping[str, Any]) -> Config:
    """Build the Config from YAML values; with `variant: released` the defaults are RELEASED."""
    preset = RELEASED if settings.get("variant") == "released" else {}
    return from_mapping(Config, {**preset, **settings}, where="aligndiff")
