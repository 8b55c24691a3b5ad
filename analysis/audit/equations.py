"""What can be proved from the printed equations alone, without training.

Flat energy. Eq 13 is the mean of 1/2 || S(x) - ((S(y) - S(x)) / s + S(x) s) ||^2 with s = sigma^2 > 0. Put S = 0
everywhere, the gradient of a constant energy: S(x) = S(y) = 0 makes every term 0 for every s, and no term is
negative, so this is a global minimum. Eq 14 adds a cross-entropy of the prediction before the correction, which does
not contain S. Hence no term of eq 14 keeps the energy from going flat, and then the correction x - Omega S(x) is the
identity.

Sign. The released loss is || g - ((y_s - x) + g s) ||^2 = || g (1 - s) - (y_s - x) ||^2 with x detached, where y_s is
the target noised at a random step and s = sigma_t^2. For 0 < s < 1 it is smallest at g = (y_s - x) / (1 - s), which
points from the prediction x to y_s. Inference takes x - 0.1 g: at that minimum it is x - 0.1 (y_s - x) / (1 - s),
farther from y_s than x is by the factor 1 + 0.1 / (1 - s). For s > 1 the minimum points the other way. The code reads
sigma_t from a field that it never defines; those of a schedule with alpha_bar > 0, such as sqrt(1 - alpha_bar_t) of our
repair, are below 1. Of the target y itself this says less: y_s is shorter, so away from y_s, along x, may be towards y.

Orthogonal maps. Head i of eq 3 reads Q U_i and K V_i with Q = X W_Q and K = X W_K, and U_1 .. U_h are the columns of
one orthogonal d x d matrix U, as V_1 .. V_h are of V. So Q U = X (W_Q U), and W_Q is free: with U = I the matrix W_Q U
does what W_Q and U do together, and likewise W_K V. The maps take nothing away from what the layer can compute and add
nothing to it; only the way that training takes is another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.audit.finding import Finding, Outcome

BETA_MIN, BETA_MAX, KNEE = 0.1, 0.9, 0.8  # eq 5
RELEASED_STEP = 0.1  # src/AlignDiff.py:384
RELEASED_STEPS = 32  # src/main.py:41; the paper prints no T
FLOAT32_TINY = 2.0**-149


def beta_schedule(num_steps: int) -> NDArray[np.float64]:
    """Eq 5: linear up to tau = 0.8 T, then beta_max / 10.  -> [T]"""
    t_T = np.arange(1, num_steps + 1)
    rising_T = BETA_MIN + t_T / num_steps * (BETA_MAX - BETA_MIN)
    return np.where(t_T <= KNEE * num_steps, rising_T, BETA_MAX / 10)


def check() -> Outcome:
    """State what follows from the equations."""
    findings = (_flat_energy(), _correction_sign(), _orthogonal_maps(), *_schedule(), *_NOTATION)
    return Outcome(
        check="equations",
        question="Do the printed equations agree with the text and do what it says?",
        checked=len(findings),
        held=sum(not finding.is_alarm for finding in findings),
        findings=findings,
        headline="A constant energy minimises eq 13, so the loss does not keep the correction alive; in released "
        "code, for sigma below 1, loss and correction have opposite signs; schedule, shapes and eq 11, 12 disagree "
        "with the text.",
    )


def _finding(name: str, kind: str, **fields: Any) -> Finding:
    return Finding(id=f"equations/{name}", check="equations", kind=kind, **fields)


def _flat_energy() -> Finding:
    return _finding(
        "flat-energy",
        "unsupported",
        claims=("energy-needed",),
        printed="eq 13, eq 14",
        expected="a loss that a constant energy does not minimise",
        evidence={
            "proof": "S = 0 makes every term of eq 13 zero for every sigma; no term is negative; eq 12 has no S."
        },
        sentence="Eq 13 has a trivial minimum: for every sigma a constant energy (S = 0 everywhere) makes it zero. "
        "Nothing in eq 14 keeps the energy from going flat, and the correction x - Omega S(x) is then the identity. "
        "Whether it does is for runs to measure.",
    )


def _correction_sign() -> Finding:
    return _finding(
        "correction-sign",
        "inconsistent",
        claims=("released-code",),
        printed="released loss || g (1 - s) - (y_s - x) ||^2 with s = sigma_t^2, correction x - 0.1 g",
        expected="a correction towards the noised target y_s that the loss teaches",
        evidence={
            "proof": "the loss is zero at g = (y_s - x) / (1 - s); x - 0.1 g - y_s = (x - y_s) (1 + 0.1 / (1 - s))",
            "distance_factor_at_s_0.5": 1 + RELEASED_STEP / 0.5,
            "condition": "0 < s < 1",
        },
        sentence="In the released code, for every sigma_t below 1 (it reads sigma_t and defines none; our repair's "
        "are) the loss is smallest where the learned gradient points from the prediction to the noised target y_s, "
        "and inference subtracts that gradient: at the minimum the correction moves away from y_s. What that does to "
        "the target's rank is for runs to measure.",
    )


def _orthogonal_maps() -> Finding:
    return _finding(
        "orthogonal-maps",
        "context",
        claims=("guidance-needed",),
        printed="eq 2, eq 3",
        expected="",
        evidence={"proof": "Q U = X (W_Q U) and K V = X (W_K V), where W_Q and W_K are free d x d matrices"},
        sentence="The orthogonal maps of eq 3 stand behind the free projections of eq 2, which can absorb them: "
        "without them the layer can compute the same functions, those of attention whose heads share the unsplit "
        "value. What they may change is the way that training takes.",
    )


def _schedule() -> tuple[Finding, ...]:
    beta_T = beta_schedule(RELEASED_STEPS)
    alpha_bar_T = np.cumprod(1 - beta_T)
    long_alpha_bar_T = np.cumprod(1 - beta_schedule(1000))
    early = _finding(
        "schedule-text",
        "inconsistent",
        printed="early steps: high noise (0.9)",
        expected=f"beta_1 = {beta_T[0]:.3f}, largest {beta_T.max():.3f}",
        evidence={"T": RELEASED_STEPS, "beta_1": float(beta_T[0]), "largest": float(beta_T.max())},
        sentence=f"The text around eq 5 calls early steps 'high noise (0.9)'; the formula gives {beta_T[0]:.3f} at "
        f"the first of {RELEASED_STEPS} steps and at most {beta_T.max():.3f}.",
    )
    scale = _finding(
        "schedule-length",
        "context",
        printed="T is not printed",
        expected="",
        evidence={
            "alpha_bar_32": float(alpha_bar_T[-1]),
            "steps_above_0.01_of_32": int((alpha_bar_T > 0.01).sum()),
            "alpha_bar_1000": float(long_alpha_bar_T[-1]),
            "steps_above_0.01_of_1000": int((long_alpha_bar_T > 0.01).sum()),
            "underflows_float32": bool(long_alpha_bar_T[-1] < FLOAT32_TINY),
        },
        sentence=f"The schedule of eq 5 does not scale with T: {int((alpha_bar_T > 0.01).sum())} of 32 steps keep "
        f"alpha_bar above 0.01 (alpha_bar_32 = {alpha_bar_T[-1]:.1e}), and {int((long_alpha_bar_T > 0.01).sum())} of "
        f"1000 (alpha_bar_1000 = {long_alpha_bar_T[-1]:.0e}, zero in float32).",
    )
    return early, scale


def _notation(name: str, printed: str, expected: str, sentence: str) -> Finding:
    return _finding(name, "inconsistent", sentence=sentence, printed=printed, expected=expected)


_NOTATION = (
    _notation(
        "scalar-energy",
        "eq 10: S maps d to 2d to 1",
        "a vector in R^d",
        "Eq 10 makes S a scalar; eq 13 and the correction x - S(x) need a vector. Shapes agree only if S is the "
        "gradient of a scalar energy.",
    ),
    _notation(
        "variance-as-deviation",
        "eq 11: beta~_t eps'",
        "sqrt(beta~_t) eps'",
        "Eq 11 multiplies the noise by the posterior variance where its square root, the deviation, belongs.",
    ),
    _notation(
        "cross-entropy-index",
        "eq 12: e_{n+1} in the numerator, no minus sign before the log",
        "softmax cross-entropy of the prediction",
        "Eq 12 as printed is not the softmax cross-entropy that the text describes.",
    ),
    _notation(
        "correction-place",
        "eq 11: in every step; text: once after the T steps",
        "one of the two",
        "Eq 11 corrects inside every reverse step; the text also says that one correction follows the T steps.",
    ),
)
