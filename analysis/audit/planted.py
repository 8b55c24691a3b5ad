"""Fake tables with known defects, to measure what the audit finds and what it cries wolf over.

Each model's ranks on each dataset come from a random law; the number of users at each rank is drawn as a multinomial,
which is how ranks of independent users fall. Every run draws anew, the table prints means and sample deviations over
runs to four decimals, improvements to one and p-values (two-sided Welch, if not said) to two digits, all from unrounded
numbers: a consistent table by construction. A defect changes as little of that as its name says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_ind

from analysis.audit.cells import Cell
from analysis.audit.feasibility import GAINS
from analysis.audit.printed import Printed

CUTOFFS = (5, 10, 20)
METRICS = tuple(f"{name}@{k}" for name in ("HR", "NDCG") for k in CUTOFFS)
MODELS = ("Ours", "Rival A", "Rival B", "Rival C", "Rival D")
USERS: Mapping[str, int] = {"small": 943, "medium": 6040, "large": 22363}
NUM_RUNS, NUM_EPOCHS = 5, 8
RANKS = range(1, max(CUTOFFS) + 1)

Key = tuple[str, str]  # dataset, model
Figures = dict[Key, NDArray[np.float64]]  # percent, [R, 6]
Test = Callable[[NDArray[np.float64], NDArray[np.float64]], float]


@dataclass(frozen=True)
class Simulation:
    """Users at each of the first 20 ranks: [epochs, runs, ranks] by dataset and model. The last epoch is reported."""

    counts: Mapping[Key, NDArray[np.int64]]

    def figures(self, epoch: int = -1) -> Figures:
        """Metrics of every run at one epoch."""
        return {key: metrics_of(counts[epoch], USERS[key[0]]) for key, counts in self.counts.items()}

    def best_epoch_figures(self) -> Figures:
        """For every run and metric the best epoch of its own."""
        return {key: metrics_of(counts, USERS[key[0]]).max(axis=0) for key, counts in self.counts.items()}


def _gains(name: str) -> NDArray[np.float64]:
    gain = np.array([GAINS[name](rank) for rank in RANKS])
    return np.stack([np.where(np.array(RANKS) <= k, gain, 0.0) for k in CUTOFFS])


GAIN_MK = np.concatenate([_gains("HR"), _gains("NDCG")])
MRR_MK = _gains("MRR")


def metrics_of(
    counts: NDArray[np.int64], num_users: int, gain_MK: NDArray[np.float64] = GAIN_MK
) -> NDArray[np.float64]:
    """Percentages from users per rank.  [..., 20] -> [..., metrics]"""
    return 100 * counts @ gain_MK.T / num_users


def simulate(rng: np.random.Generator) -> Simulation:
    """Draw ranks for every dataset, model, epoch and run."""
    counts = {}
    for dataset, num_users in USERS.items():
        for model in MODELS:
            share, slope = rng.uniform(0.03, 0.45), rng.uniform(0.3, 1.3)
            epochs = []
            for _ in range(NUM_EPOCHS):  # late epochs trade the head of the ranking against its tail
                law = np.array(RANKS) ** -(slope * rng.uniform(0.9, 1.1))
                law *= share * rng.uniform(0.95, 1.05) / law.sum()
                epochs.append(rng.multinomial(num_users, [*law, 1 - law.sum()], size=NUM_RUNS)[:, :-1])
            counts[dataset, model] = np.stack(epochs)
    return Simulation(counts)


def two_sided_welch(ours_R: NDArray[np.float64], rival_R: NDArray[np.float64]) -> float:
    return float(ttest_ind(ours_R, rival_R, equal_var=False).pvalue)


def print_table(figures: Figures, decimals: int = 4, p_of: Test = two_sided_welch) -> list[Cell]:
    """Print means and deviations of every model, and Ours' improvements and p over the best rival."""
    cells = [
        _cell(key, metric, runs_RM[:, column], decimals)
        for key, runs_RM in figures.items()
        for column, metric in enumerate(METRICS)
    ]
    return [_with_claims(cell, figures, p_of) if cell.model == MODELS[0] else cell for cell in cells]


def _printed(value: float, decimals: int) -> Printed:
    return Printed.parse(f"{value:.{decimals}f}")


def _cell(key: Key, metric: str, run_R: NDArray[np.float64], decimals: int) -> Cell:
    return Cell(
        table="fake",
        dataset=key[0],
        metric=metric,
        model=key[1],
        printed=_printed(run_R.mean(), decimals),
        std=_printed(run_R.std(ddof=1), decimals),
        n=NUM_RUNS,
    )


def _with_claims(cell: Cell, figures: Figures, p_of: Test) -> Cell:
    ours_R, rival_R = _ours_and(0, cell, figures)
    return replace(
        cell,
        improvement=_printed(100 * (ours_R.mean() / rival_R.mean() - 1), 1),
        p=Printed.parse(f"{p_of(ours_R, rival_R):.1e}"),
    )


def _ours_and(place: int, cell: Cell, figures: Figures) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Runs of Ours and of the rival at a place, the best being 0."""
    column = METRICS.index(cell.metric)
    rivals = sorted((figures[cell.dataset, model][:, column] for model in MODELS[1:]), key=lambda run_R: -run_R.mean())
    return figures[cell.dataset, cell.model][:, column], rivals[place]


# Defects. Each takes a simulation and a generator and returns the cells of one table.


def consistent(simulation: Simulation, rng: np.random.Generator) -> list[Cell]:
    """No defect."""
    return print_table(simulation.figures())


def consistent_from_rounded_runs(simulation: Simulation, rng: np.random.Generator) -> list[Cell]:
    """No defect; every run was rounded to four decimals before anything was computed from it."""
    return print_table({key: runs_RM.round(4) for key, runs_RM in simulation.figures().items()})


def consistent_in_two_decimals(simulation: Simulation, rng: np.random.Generator) -> list[Cell]:
    """No defect; printed to two decimals with trailing zeros dropped."""
    cells = print_table(simulation.figures(), decimals=2)
    return [replace(cell, printed=Printed.parse(f"{cell.value:g}")) for cell in cells]


def consistent_in_other_tests(simulation: Simulation, rng: np.random.Generator) -> list[Cell]:
    """No defect; p of one unpaired test for the whole table: Student's, or Welch's or Student's one-sided."""
    tests: tuple[Test, ...] = (
        lambda ours_R, rival_R: ttest_ind(ours_R, rival_R).pvalue,
        lambda ours_R, rival_R: ttest_ind(ours_R, rival_R, equal_var=False, alternative="greater").pvalue,
        lambda ours_R, rival_R: ttest_ind(ours_R, rival_R, alternative="greater").pvalue,
    )
    return print_table(simulation.figures(), p_of=tests[rng.integers(len(tests))])


def nudged_by(percent: int) -> Callable[[Simulation, np.random.Generator], list[Cell]]:
    """One cell off by some percent, up or down."""

    def plant(simulation: Simulation, rng: np.random.Generator) -> list[Cell]:
        cells = print_table(simulation.figures())
        index, sign = rng.integers(len(cells)), rng.choice((-1, 1))
        value = cells[index].value * (1 + sign * percent / 100)
        cells[index] = replace(cells[index], printed=_printed(value, 4))
        return cells

    return plant


def columns_swapped(simulation: Simulation, rng: np.random.Generator) -> list[Cell]:
    """The headings of two columns of one dataset exchanged."""
    pairs = list(combinations(METRICS, 2))
    first, second = pairs[rng.integers(len(pairs))]
    dataset = rng.choice(list(USERS))
    other = {first: second, second: first}
    return [
        replace(cell, metric=other.get(cell.metric, cell.metric)) if cell.dataset == dataset else cell
        for cell in print_table(simulation.figures())
    ]


def metric_mislabelled(simulation: Simulation, rng: np.random.Generator) -> list[Cell]:
    """MRR of one row printed as NDCG."""
    figures = simulation.figures()
    key = _row(rng, MODELS)
    mrr_RM = metrics_of(simulation.counts[key][-1], USERS[key[0]], MRR_MK)
    figures[key] = np.concatenate([figures[key][:, : len(CUTOFFS)], mrr_RM], axis=1)
    return print_table(figures)


def best_epoch_per_metric(simulation: Simulation, rng: np.random.Generator) -> list[Cell]:
    """Every figure from the best epoch for that figure."""
    return print_table(simulation.best_epoch_figures())


def best_epoch_in_one_row(simulation: Simulation, rng: np.random.Generator) -> list[Cell]:
    """Every figure of one row from the best epoch for that figure."""
    figures, key = simulation.figures(), _row(rng, MODELS)
    figures[key] = simulation.best_epoch_figures()[key]
    return print_table(figures)


def p_too_small(simulation: Simulation, rng: np.random.Generator) -> list[Cell]:
    """Every p-value of one dataset a hundred times too small."""
    dataset = rng.choice(list(USERS))
    return [
        replace(cell, p=Printed.parse(f"{float(cell.p) / 100:.1e}")) if cell.p and cell.dataset == dataset else cell
        for cell in print_table(simulation.figures())
    ]


def wrong_rival(simulation: Simulation, rng: np.random.Generator) -> list[Cell]:
    """The improvements on one dataset taken over the second-best rival."""
    figures, dataset = simulation.figures(), rng.choice(list(USERS))
    cells = []
    for cell in print_table(figures):
        if cell.improvement and cell.dataset == dataset:
            ours_R, second_R = _ours_and(1, cell, figures)
            cell = replace(cell, improvement=_printed(100 * (ours_R.mean() / second_R.mean() - 1), 1))
        cells.append(cell)
    return cells


def amounts_added(simulation: Simulation, rng: np.random.Generator) -> list[Cell]:
    """0.8, 0.6 and 0.3 added to NDCG@5, @10 and @20 of one rival's row, before anything is derived from it."""
    figures = simulation.figures()
    key = _row(rng, MODELS[1:])
    figures[key] = figures[key] + np.array([0, 0, 0, 0.8, 0.6, 0.3])
    return print_table(figures)


def row_copied(simulation: Simulation, rng: np.random.Generator) -> list[Cell]:
    """One rival's row printed for another rival too."""
    figures = simulation.figures()
    dataset = str(rng.choice(list(USERS)))
    source, target = rng.choice(MODELS[1:], size=2, replace=False)
    figures[dataset, str(target)] = figures[dataset, str(source)]
    return print_table(figures)


def last_digits_changed(simulation: Simulation, rng: np.random.Generator) -> list[Cell]:
    """The last two decimals of every rival's HR redrawn: only whole counts can tell."""
    cells = print_table(simulation.figures())
    return [
        replace(cell, printed=Printed.parse(str(_redraw(cell.printed.value, rng))))
        if cell.metric.startswith("HR") and cell.model != MODELS[0]
        else cell
        for cell in cells
    ]


def _redraw(value: Decimal, rng: np.random.Generator) -> Decimal:
    return value.quantize(Decimal("0.01")) + Decimal(int(rng.integers(-49, 50))).scaleb(-4)


def _row(rng: np.random.Generator, models: tuple[str, ...]) -> Key:
    return str(rng.choice(list(USERS))), str(rng.choice(models))


DEFECTS: dict[str, Callable[[Simulation, np.random.Generator], list[Cell]]] = {
    "none (consistent table)": consistent,
    "none (runs rounded before averaging)": consistent_from_rounded_runs,
    "none (two decimals, zeros dropped)": consistent_in_two_decimals,
    "none (p of Student's or of a one-sided t)": consistent_in_other_tests,
    "one cell nudged by 1%": nudged_by(1),
    "one cell nudged by 5%": nudged_by(5),
    "one cell nudged by 20%": nudged_by(20),
    "two columns swapped": columns_swapped,
    "MRR printed as NDCG in one row": metric_mislabelled,
    "best epoch per metric, one row": best_epoch_in_one_row,
    "best epoch per metric, every row": best_epoch_per_metric,
    "p-values 100 times too small": p_too_small,
    "improvements over the wrong rival": wrong_rival,
    "0.8, 0.6, 0.3 added to one row's NDCG": amounts_added,
    "one row copied from another": row_copied,
    "last two digits of HR redrawn": last_digits_changed,
}
