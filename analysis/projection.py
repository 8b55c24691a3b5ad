"""Two-dimensional pictures of generated representations beside their targets (Figure 4), and what can be counted.

Models live in different spaces: coordinate 3 of one has nothing to do with coordinate 3 of another, and two
clouds plotted as exported lie apart even if both generators are perfect. What the models share is the users:
row u is the same test target in every model's truth. So each model is first centred and scaled by its own
truth (one factor, so shapes stay), then turned by the orthogonal map that best lays its truth on the
reference's truth (Procrustes). Its generated points take the same steps. `misfit` says how much of its truth
the turn failed to match: near 1, the joint picture compares nothing, and only each model beside its own
truth means something.

Numbers come from the original space (`knn_mixing`), never from the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.linalg
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

Floats = NDArray[np.floating]

TRUTH = "ground truth"
PCA_CAPTION = (
    "PCA of the pooled points: the two directions of largest variance, {share:.0f} % of it. What differs along "
    "the others is invisible here."
)
TSNE_CAPTION = (
    "t-SNE (perplexity {perplexity:g}, seed {seed}) keeps neighbourhoods, not distances: gaps, cluster sizes and "
    "the distance between clouds are no evidence. The overlap is measured by kNN mixing in the original space."
)
JOINT_CAPTION = (
    "Each model centred and scaled by its own targets, then turned onto the targets of {reference}; share of "
    "target variance the turn could not match: {misfits}."
)


@dataclass(frozen=True)
class Space:
    """One model's points for the same users: generated [U, D] and target embeddings [U, D]."""

    generated: Floats
    truth: Floats


@dataclass(frozen=True)
class JointSpace:
    """All models in the reference's space: the reference's truth and every model's generated points."""

    truth: Floats
    generated: Mapping[str, Floats]
    misfit: Mapping[str, float]  # 0: truths agree after turning; 1: nothing matched
    caption: str


@dataclass(frozen=True)
class Mixing:
    """Share of the k nearest neighbours that come from the other sample, against perfect mixing.

    Ratios near 1: mixed. `generated_ratio` near 0: generated points keep to themselves. `truth_ratio` near 0
    with a larger `generated_ratio`: they sit in few places and leave most of the truth uncovered.
    """

    k: int
    num_points: int
    generated_share: float  # of a generated point's neighbours, those that are truth
    truth_share: float  # of a true point's neighbours, those that are generated
    expected: float
    generated_ratio: float
    truth_ratio: float


@dataclass(frozen=True)
class Projection:
    """A fitted picture: tidy `points` (label, x, y) and the caption that must go with it."""

    points: pd.DataFrame
    caption: str


def subsample(spaces: Mapping[str, Space], size: int, rng: np.random.Generator) -> dict[str, Space]:
    """Keep the same `size` users in every model, or all if there are fewer.

    Raises ValueError if the models hold different numbers of users.
    """
    counts = {name: len(s.truth) for name, s in spaces.items()} | {
        f"{name} (generated)": len(s.generated) for name, s in spaces.items()
    }
    if len(set(counts.values())) != 1:
        raise ValueError(f"numbers of users differ: {counts}; project runs on the same data only")
    num_users = next(iter(counts.values()))
    rows = np.sort(rng.choice(num_users, min(size, num_users), replace=False))
    return {name: Space(s.generated[rows], s.truth[rows]) for name, s in spaces.items()}


def joint_space(spaces: Mapping[str, Space], reference: str) -> JointSpace:
    """Lay all models into the reference's space by their shared users; narrower ones are padded with zeros.

    Raises ValueError if `reference` is none of the models or a model's targets coincide.
    """
    if reference not in spaces:
        raise ValueError(f"reference is {reference!r}; legal values are {', '.join(spaces)}")
    width = max(s.truth.shape[1] for s in spaces.values())
    units = {name: _in_own_units(name, s, width) for name, s in spaces.items()}
    target = units[reference].truth
    generated, misfit = {}, {}
    for name, space in units.items():
        turn, strength = scipy.linalg.orthogonal_procrustes(space.truth, target)
        # Both truths have mean square length 1, so the best turn reproduces (sum of strengths / U)^2 of the variance.
        misfit[name] = float(max(0.0, 1 - (strength / len(target)) ** 2))
        generated[name] = space.generated if name == reference else space.generated @ turn
    misfits = ", ".join(f"{name} {value:.2f}" for name, value in misfit.items() if name != reference) or "none"
    return JointSpace(target, generated, misfit, JOINT_CAPTION.format(reference=reference, misfits=misfits))


def project_pca(clouds: Mapping[str, Floats]) -> Projection:
    """Fit PCA on all clouds together; every cloud label keeps its points' order."""
    pooled = np.concatenate(list(clouds.values()))
    model = PCA(n_components=2, svd_solver="full").fit(pooled)
    share = 100 * model.explained_variance_ratio_.sum()
    return Projection(_tidy(clouds, model.transform(pooled)), PCA_CAPTION.format(share=share))


def project_tsne(clouds: Mapping[str, Floats], seed: int, *, perplexity: float = 30.0) -> Projection:
    """Fit t-SNE on all clouds together, from a PCA start with a fixed seed.

    The perplexity is lowered to a third of the points where there are few.
    """
    pooled = np.concatenate(list(clouds.values())).astype(np.float32)
    perplexity = min(perplexity, (len(pooled) - 1) / 3)
    model = TSNE(n_components=2, init="pca", perplexity=perplexity, random_state=seed)
    caption = TSNE_CAPTION.format(perplexity=perplexity, seed=seed)
    return Projection(_tidy(clouds, model.fit_transform(pooled)), caption)


def knn_mixing(generated: Floats, truth: Floats, k: int = 10) -> Mixing:
    """Count whose neighbours the k nearest of each point are, in the space given.

    Give one model's own space, standardised if its axes differ in scale. Expected share under perfect mixing:
    other / (all - 1). Users who share a target share its point, so exact copies of popular targets are each
    other's nearest neighbours; that lowers `truth_share` for every model alike.
    Raises ValueError unless 1 <= k < number of points.
    """
    n, m = len(generated), len(truth)
    if not 1 <= k < n + m:
        raise ValueError(f"k is {k}; legal values are 1 to {n + m - 1}, one less than the number of points")
    pooled = np.concatenate([generated, truth])
    # Without an argument kneighbors leaves each point out of its own list, even among exact copies.
    neighbour = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(pooled).kneighbors(return_distance=False)
    is_truth = neighbour >= n
    generated_share, truth_share = float(is_truth[:n].mean()), float(1 - is_truth[n:].mean())
    return Mixing(
        k=k,
        num_points=n + m,
        generated_share=generated_share,
        truth_share=truth_share,
        expected=m / (n + m - 1),
        generated_ratio=generated_share * (n + m - 1) / m,
        truth_ratio=truth_share * (n + m - 1) / n,
    )


def clouds_of(joint: JointSpace) -> dict[str, Floats]:
    """Label the point clouds of a joint space for one fit: the truth first, then each model."""
    return {TRUTH: joint.truth, **joint.generated}


def _in_own_units(name: str, space: Space, width: int) -> Space:
    truth = space.truth.astype(np.float64)
    mean = truth.mean(axis=0)
    scale = np.sqrt(((truth - mean) ** 2).sum(axis=1).mean())
    if scale == 0:
        raise ValueError(f"all targets of {name} coincide; there is no space to lay it into")
    padding = ((0, 0), (0, width - truth.shape[1]))
    return Space(*(np.pad((part - mean) / scale, padding) for part in (space.generated, truth)))


def _tidy(clouds: Mapping[str, Floats], xy: Floats) -> pd.DataFrame:
    label = np.repeat(list(clouds), [len(points) for points in clouds.values()])
    return pd.DataFrame({"label": label, "x": xy[:, 0], "y": xy[:, 1]})
