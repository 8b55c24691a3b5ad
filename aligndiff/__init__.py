"""AlignDiff: Gradient-Semantic Aligned Diffusion Model for Sequential Recommendation. The method under audit.

Two sources disagree: the paper (equations 1 to 14) and the authors' repository (ZhuYiZ-1205/AlignDiff, e19f279,
2025-06-29), which does not run as released. Both are built here from one set of parts; `variant` in
`aligndiff.config.Config` picks the defaults, and every row below is a setting that can be changed alone, but the
last: averages over batches are worked out from the same ranks (`harness.metrics.batch_mean`).

Row                 Paper                               Released code                     Ours where the paper is silent
------------------  ----------------------------------  --------------------------------  ------------------------------
guidance            eq 3: orthogonal U, V per head,     ordinary attention, 1 head,       4 heads; Cayley map keeps U, V
                    value not split                     keys and values un-normalised     orthogonal at every step
guidance_bias       eq 2: none in Q, K, V               all three                         -
guidance_index      not said                            index len - 1 of a LEFT-padded    last position
                                                        row: constant h up to 25 items
guidance_keys       causal only                         key mask that never fires         padding hidden
embedding_std       not said                            1 (DiffuRec)                      1; 0.02 in aligndiff.tuned
position_std        not said                            1                                 1; 0.02 in aligndiff.tuned
guidance_gain       not said                            1                                 0.1; 1 in aligndiff.tuned
null condition      named, p not given                  trained with p = 0.1, but absent  p = 0.1, learned vector used
                                                        at inference                      in training and at inference
guide_on            (1 + w) f - w f_null                on hidden states before the norm  on x~_0
w                   0.3; 0.1 on ML-1M                   0.3                               -
schedule            eq 5: 0.125 .. 0.725, then 0.09     linear 0.013 .. 0.635 (DiffuRec)  -
num_steps           not printed                         32                                32
alpha_0             in the text, no value               no such step                      1 - beta_1 / T
lambda              N(delta, delta)                     mean and std 0.001                std reading
nu                  0.05, in no equation                "scale" 0.1 = gamma of eq 8       read as gamma; or as delta
mask                not said                            DiffuRec's: flattens padded       padding keys hidden
                                                        queries, hides no key
energy              eq 10: MLP d -> 2d -> 1 named S,    grad of an MLP of 2 linear        S = grad E; GELU MLP of 3
                    subtracted from vectors             layers ("1"), ELU, dropout 0.3    linear layers, dropout 0.1
energy_init         not said                            Xavier, uniform                   torch's, which is smaller
alignment           eq 13, which S = 0 minimises        || g (1 - s^2) - (y_s - x~) ||^2  eq 13, sigma^2 >= 1e-4
correction          x~ - Omega S, Omega = 0.01          x~ - 0.1 g, a literal             -
correction_at       every step (eq 11) or once (text)   every step                        every step
reverse_variance    beta~_t eps: a variance as a std    sqrt(beta_t)                      sqrt(beta~_t)
eta                 0.01                                x 1.1 or x 0.8 per evaluation,    constant
                                                        every 20 epochs
padding_class       not said                            padding is a class and is ranked  no
learning rate       1e-3                                x 0.1 every 100 epochs            the same
test inputs         not said                            without the first training item   whole (evaluation section)
selection           not said                            any of six metrics improves       NDCG@10 (training section)
averages            five runs                           mean of batch means               mean over users

Not settings, where the paper is silent: gradients of eq 13 reach energy, prediction and, through y_s, the item vectors
(the released loss detaches the prediction); sigma_t in it is sqrt(1 - alpha_bar'_t), in the released loss too, whose
code reads a field for it that it never defines; one lambda is drawn for both branches of the guidance; the guidance has
dropout on its attention and its feed-forward part; the blocks' LayerNorms add 1e-5, the released ones 1e-12.

Where the released key mask is concerned we follow what it computes: it hides keys whose features sum to exactly 0, and
padding rows, which hold an ordinary embedding plus a position, never do. Not reproduced: its query mask, which by the
same test drops a row at random when 128 normalised features happen to sum to 0 in float32.
Padding's place in the ranking: the harness never ranks padding; `padding_above` of the probe says how often it would
have stood above the target.

Parts: config, schedule (eqs 5, 8), guidance (1 to 4), denoiser (7), energy (10), losses (13 and Table 7), network,
sampler (11), probe (does each part do anything?), learner (12, 14). Tests: tests/aligndiff, with the equations written
out once more in oracle.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aligndiff import config, schedule
from aligndiff.learner import AlignDiffLearner
from harness.compute import Compute
from harness.split import TrainingView
from harness.streams import Streams


def read_config(settings: Mapping[str, Any]) -> config.Config:
    """Settings with every default.  Raises ValueError, also for a schedule that leaves no signal after T steps."""
    found = config.read_config(settings)
    schedule.target_process(found)
    return found


def build(settings: Mapping[str, Any], view: TrainingView, streams: Streams, compute: Compute) -> AlignDiffLearner:
    found = read_config(settings)
    streams.seed_global("init")
    return AlignDiffLearner(found, view, streams, compute)
