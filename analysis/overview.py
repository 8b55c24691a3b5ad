"""The part of README.md that shows what is measured so far, written from files so that no figure there is typed.

    snakemake --configfile config/reference.yaml --cores 2
    python -m analysis.overview

Table 2 as measured beside as printed, AlignDiff seed by seed, the audit's summary, what each trained cell took and
where its settings are not the full grid's. The audit's findings are copied to where the code host shows them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from analysis import deviations, seed_by_seed, table_formats
from analysis.audit.report import CAVEAT
from analysis.inventory import duration
from analysis.load import Run, Runs, load_runs
from analysis.markdown import put_between
from analysis.measured import CUT_OFF, CUT_OFF_MEANS, NOT_RUN, Cell
from analysis.mmd_table import RIVAL
from analysis.plan import Plan, read_plan
from analysis.table_model import Block, Row, Table
from analysis.table_specs import CLAIMANT, FLOORS, HEADLINE, OWN_VARIANTS, TWINS
from harness import cli
from harness.record import write_text_atomically

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
RESULTS, RUNS = Path("results/from-reference"), Path("results/reference/runs")
FINDINGS = Path("results/reference/findings.md")
PRINTED_UNDER = "kept"  # what the paper prints is set beside the suite's headline protocol


def overview(tables: Sequence[Table], audit: Sequence[str], runs: Runs, plan: Plan) -> str:
    """The whole part between the marks, as Markdown."""
    main = next(table for table in tables if table.slug == "table2")
    completed = [run for run in runs.runs if run.record.completed]
    trained = [run for run in completed if run.record.epochs_run]
    return "\n\n".join(
        [
            f"{' / '.join(HEADLINE)} in percent, seen items kept. {CUT_OFF_MEANS} ±: standard deviation over seeds, "
            "mostly two, of which it says little; a trained row without it has one seed. Rows under a heading are not "
            "in the paper's table.",
            comparison(main, tables, protocol="kept", labels=plan.labels()),
            *folded(
                "The same with seen items hidden", [comparison(main, tables, protocol="hidden", labels=plan.labels())]
            ),
            *folded(
                "AlignDiff, DiffuRec and their variants beside each other, seed by seed",
                differences_listed(completed, plan),
            ),
            f"**The audit in short.** {CAVEAT}",
            "\n".join(f"- {line}" for line in audit),
            *folded("What these runs took: seeds, epochs, patience, time, machine", costs_listed(trained, plan)),
            *folded("Where their settings are not those of the full grid", deviations_listed(runs, plan)),
        ]
    )


def folded(title: str, parts: Sequence[str]) -> list[str]:
    """What a reader may open; nothing for nothing."""
    return [f"<details><summary>{title}</summary>", *parts, "</details>"] if parts else []


def comparison(main: Table, tables: Sequence[Table], *, protocol: str, labels: Mapping[str, str]) -> str:
    """One line per method: measured for each dataset that the paper's main table has, and printed where seen are kept.

    What is not the paper's stands below, in groups. With seen items hidden only what was measured has a line.
    """
    with_printed = protocol == PRINTED_UNDER
    shown = [block for block in main.blocks if block.protocol == PRINTED_UNDER and block.has_printed]
    asked = [block for table in (main, *tables) for block in table.blocks if block.protocol == protocol]
    if not shown:
        raise ValueError("no table of a dataset of the paper is there, so nothing can stand beside what it prints")
    of_dataset = [[block for block in asked if block.dataset == each.dataset] for each in shown]
    head = ["", *(text for block in shown for text in (block.display, "*printed*")[: 1 + with_printed])]
    body: list[list[str]] = []
    for group, names in _grouped(shown[0], asked, labels).items():
        lines = [
            [label, *(text for blocks in of_dataset for text in _line(blocks, method)[: 1 + with_printed])]
            for method, label in names.items()
        ]
        lines = [line for line in lines if with_printed or set(line[1:]) != {NOT_RUN}]
        heading = [f"*{group}*", *[""] * (len(head) - 1)]
        body += [heading, *lines] if group and lines else lines
    return table_formats.pipe_table(head, body)


def _grouped(main: Block, blocks: Sequence[Block], labels: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Heading -> method -> label: the paper's rows, then what else was measured in any table, floors last."""
    found: dict[str, dict[str, str]] = {"": {row.method: row.label for row in main.rows}}
    seen = set(found[""])
    for row in (row for block in blocks for row in block.others if row.is_measured and row.method not in seen):
        heading = OWN_VARIANTS if row.group == TWINS else row.group
        found.setdefault(heading, {})[row.method] = labels.get(row.method, row.label)
        seen.add(row.method)
    return dict(sorted(found.items(), key=lambda item: item[0] == FLOORS))


def _line(blocks: Sequence[Block], method: str) -> tuple[str, str]:
    """Measured and printed, from the first of a dataset's blocks that has the method."""
    found = next(((block, row) for block in blocks for row in block.all_rows if row.method == method), None)
    return _pair(*found) if found else (NOT_RUN, "")


def _pair(block: Block, row: Row) -> tuple[str, str]:
    cells: list[Cell] = [row.cells[block.columns.index(metric)] for metric in HEADLINE]
    printed = [f"{float(cell.printed):.2f}" for cell in cells if cell.printed]
    if cells[0].value is None:
        return cells[0].text, " / ".join(printed)
    mark = CUT_OFF if cells[0].cut_off else ""  # once, behind both figures
    return " / ".join(cell.text.removesuffix(CUT_OFF) for cell in cells) + mark, " / ".join(printed)


def differences_listed(completed: Sequence[Run], plan: Plan) -> list[str]:
    """AlignDiff and DiffuRec against what each of their runs should be compared with, if there are such runs."""
    family = [run for run in completed if run.record.method.partition(".")[0] in (CLAIMANT, RIVAL)]
    made = seed_by_seed.table(family, names=plan.labels() | plan.datasets)
    said = (
        "The first model minus the one beside it, in points of percent; in parentheses the standard error over users, "
        "for these weights. It leaves out what another seed would do: compare the lines of a pair. Best epoch, and of "
        "how many; taken over: weights of the model beside it, ranked again."
    )
    return [said, made] if made else []


def costs_listed(trained: Sequence[Run], plan: Plan) -> list[str]:
    """What the table of costs says and does not say, and the table."""
    said = (
        "Wall times on shared processors, some with spells in which the run was stopped: orientation only. "
        "Patience: a run ends after so many epochs without a better validation figure, on so many users."
    )
    return [said, costs(trained, plan)]


def costs(trained: Sequence[Run], plan: Plan) -> str:
    """One line per method and dataset: seeds, epochs, time and machine."""
    labels = plan.labels()
    head = ["", "seed", "best epoch", "of", "patience", "training", "precision", "processor"]
    body = []
    for (dataset, method), found in groupby(trained, key=lambda run: (run.record.dataset, run.record.method)):
        group = list(found)
        records = [run.record for run in group]
        name = f"{labels.get(method, records[0].display)}, {plan.datasets.get(dataset, dataset)}"
        body.append(
            [
                name,
                *(_listed(values) for values in zip(*map(_facts, group), strict=True)),
            ]
        )
    return table_formats.pipe_table(head, body)


def deviations_listed(runs: Runs, plan: Plan) -> list[str]:
    """The runs whose settings are not the plan's, if there are any."""
    found = deviations.grouped([run for run in runs.runs if run.record.completed], plan)
    if not found:
        return []
    head = (
        "From the records, beside `config/config.yaml` and `config/methods`. `patience` counts validations, one every "
        "`eval_every` epochs from `first_eval` on; `eval_users` null: all users. `without`: a setting that is newer "
        "than the run; what the code did then is in `results/README.md`."
    )
    return [head, "\n".join(f"- {words}: {deviations.named(group, plan)}" for words, group in found)]


def _facts(run: Run) -> tuple[str, ...]:
    record, place = run.record, run.record.environment
    plan = record.settings["training"]
    users = "all users" if plan["eval_users"] is None else f"{plan['eval_users']:,} users"
    epochs = (str(record.best_epoch), str(record.epochs_run), f"{plan['patience'] * plan['eval_every']}, {users}")
    device = place["cpu"] if place["device"] == "cpu" else place["device"]
    where = f"{device}, {place['threads']} thread" + "s" * (place["threads"] > 1)
    return str(record.seed), *epochs, duration(record.train_seconds), place["precision"], where


def _listed(values: Iterable[str]) -> str:
    """Each run's value, in order of seeds; once where all are the same."""
    values = list(values)
    between = "; " if any(", " in value for value in values) else ", "
    return values[0] if len(set(values)) == 1 else between.join(values)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.overview", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with plan.json, tables/ and audit/")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the runs behind them")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), help="file with the two marks")
    parser.add_argument("--findings", type=Path, default=FINDINGS, help="where to copy the audit's findings.md")
    arguments = parser.parse_args(argv)
    tables = table_formats.read(arguments.results / "tables")
    findings = json.loads((arguments.results / "audit" / "findings.json").read_text(encoding="utf-8"))
    plan = read_plan(arguments.results / "plan.json")
    part = overview(tables, findings["summary"]["lines"], load_runs(arguments.runs, planned=plan.paths), plan)
    put_between(arguments.readme, BEGIN, END, part)
    found = (arguments.results / "audit" / "findings.md").read_text(encoding="utf-8")
    write_text_atomically(arguments.findings, found)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
