"""Questions that the paper does not ask and a reviewer would, as statements with verdicts of their own.

Fixed before the runs: HR@10 and NDCG@10, on every dataset on which the plan has both methods.
"""

from __future__ import annotations

from dataclasses import dataclass

from analysis.audit.claims import Claim
from analysis.audit.finding import Verdict
from analysis.audit.judging import Judgement, corrected, judge_order
from analysis.audit.samples import DETERMINISTIC, Contrast, Samples, compare
from analysis.table_specs import CLAIMANT, HEADLINE, TUNED

SOURCE = "not in the paper"


@dataclass(frozen=True)
class Question:
    """A statement that holds if `subject` is above every one of `rivals`.

    A rival that begins with "." is an ending: every variant of that kind of every other model.
    """

    id: str
    statement: str
    rivals: tuple[str, ...]
    subject: str = CLAIMANT


QUESTIONS = (
    Question("tuned", "AlignDiff is above every tuned baseline.", (".tuned",)),
    Question("both-tuned", "Tuned as they are, AlignDiff is above every tuned baseline.", (".tuned",), TUNED),
    Question("floors", "AlignDiff is above every method without training of parameters.", DETERMINISTIC),
    Question("no-diffusion", "AlignDiff is above its own network without diffusion.", ("aligndiff.no_diffusion",)),
    Question(
        "tuned-no-diffusion",
        "Tuned, AlignDiff is above its own network without diffusion.",
        ("aligndiff.tuned.no_diffusion",),
        TUNED,
    ),
    Question(
        "diffusion-itself",
        "Tuned, DiffuRec is above its own network without diffusion.",
        ("diffurec.tuned.no_diffusion",),
        "diffurec.tuned",
    ),
    Question(
        "diffurec-no-diffusion", "AlignDiff is above DiffuRec without diffusion.", ("diffurec.keys.no_diffusion",)
    ),
    Question("diffurec-keys", "AlignDiff is above DiffuRec with its padding masked.", ("diffurec.keys",)),
    Question("correction", "Ranked without the energy's correction, AlignDiff falls.", ("aligndiff.no_correction",)),
    Question("sign", "With the sign of the correction turned, AlignDiff falls.", ("aligndiff.sign_turned",)),
    Question(
        "guidance-of-others", "With the guidance of another user, AlignDiff falls.", ("aligndiff.shuffled_guidance",)
    ),
    Question(
        "order-of-history", "With the history in another order, AlignDiff falls.", ("aligndiff.shuffled_history",)
    ),
    # The same of AlignDiff from the tuned start, with Table 3's ablations; asked before any of them was run.
    Question("tuned-guidance", "Tuned and without guidance, AlignDiff falls.", (f"{TUNED}.without_guidance",), TUNED),
    Question("tuned-energy", "Tuned and without energy, AlignDiff falls.", (f"{TUNED}.without_energy",), TUNED),
    Question(
        "tuned-correction",
        "Tuned and ranked without the energy's correction, AlignDiff falls.",
        (f"{TUNED}.no_correction",),
        TUNED,
    ),
    Question(
        "tuned-guidance-of-others",
        "Tuned and with the guidance of another user, AlignDiff falls.",
        (f"{TUNED}.shuffled_guidance",),
        TUNED,
    ),
    Question(
        "tuned-order-of-history",
        "Tuned and with the history in another order, AlignDiff falls.",
        (f"{TUNED}.shuffled_history",),
        TUNED,
    ),
    # Two parts of the tuned start that bear on the guidance, changed; asked before their first runs, on Toys, of which
    # the validation figures then chose the gain.
    Question(
        "tuned-positions",
        "Tuned, and positions started as small as items, AlignDiff rises.",
        (f"{TUNED}.large_positions",),
        TUNED,
    ),
    Question(
        "tuned-gain",
        "Tuned, and its guidance started at full gain, AlignDiff rises.",
        (f"{TUNED}.small_gain",),
        TUNED,
    ),
    # The paper names one learning rate; the released code lets it decay, as DiffuRec does. Asked before it was run.
    Question(
        "decay",
        "With the released decay of its learning rate, AlignDiff rises.",
        (f"{CLAIMANT}.constant_rate",),
        CLAIMANT,
    ),
    Question(
        "tuned-decay",
        "Tuned and with the released decay of its learning rate, AlignDiff rises.",
        (f"{TUNED}.constant_rate",),
        TUNED,
    ),
    # The released reading with padding hidden, from the same start, and its correction; asked before they were run.
    Question(
        "tuned-released",
        "Tuned, AlignDiff as released is above AlignDiff as printed.",
        (TUNED,),
        f"{TUNED}.released.keys",
    ),
    Question(
        "tuned-released-correction",
        "Tuned and as released, AlignDiff falls when it is ranked without its correction.",
        (f"{TUNED}.released.keys.no_correction",),
        f"{TUNED}.released.keys",
    ),
    Question(
        "tuned-released-sign",
        "Tuned and as released, AlignDiff rises with the sign of its correction turned.",
        (f"{TUNED}.released.keys",),
        f"{TUNED}.released.keys.sign_turned",
    ),
)


def ask(samples: Samples) -> list[tuple[Claim, Verdict]]:
    """Answer every question that the plan can test."""
    answers = []
    for question in QUESTIONS:
        contrasts = contrasts_of(question, samples)
        if not contrasts:
            continue
        results = corrected([compare(samples, contrast) for contrast in contrasts])
        name = f"question/{question.id}"
        rivals = ", ".join(dict.fromkeys(contrast.rival for contrast in contrasts))
        claim = Claim(
            id=name,
            source=SOURCE,
            kind="question",
            dataset="*",
            metric=", ".join(HEADLINE),
            subject=question.subject,
            object=rivals,
            value="",
            tested_by="reproduction",
            statement=question.statement,
        )
        judged = judge_order(results, samples.thresholds)
        answers.append((claim, verdict(name, judged, len(results), samples)))
    return answers


def contrasts_of(question: Question, samples: Samples) -> list[Contrast]:
    """Return the comparisons of a question, on the datasets on which the plan has the subject and the rival."""
    plan, subject = samples.plan, question.subject
    rivals = [name for name in plan.methods() if any(_is_rival(name, rival) for rival in question.rivals)]
    return [
        Contrast(dataset, metric, subject, rival)
        for dataset in plan.datasets
        for rival in rivals
        if plan.seeds(dataset, subject) and plan.seeds(dataset, rival)
        for metric in HEADLINE
    ]


def _is_rival(name: str, rival: str) -> bool:
    if rival.startswith("."):
        return name.endswith(rival) and not name.startswith(f"{CLAIMANT}.")
    return name == rival


def verdict(claim: str, judged: Judgement, size: int, samples: Samples) -> Verdict:
    """Make the verdict on a family of comparisons, with the numbers of the one that decided."""
    decisive = judged.decisive
    family = f"the claim's {size} comparisons, run or not" if size else ""
    if decisive is None:
        rule = samples.thresholds.text
        return Verdict(claim, "runs", judged.status, judged.because, family=family, rule=rule)
    assert decisive.low is not None and decisive.high is not None
    return Verdict(
        claim=claim,
        basis="runs",
        status=judged.status,
        because=judged.because,
        estimate=decisive.difference,
        interval=(decisive.low, decisive.high),
        p=decisive.corrected,
        runs=decisive.seeds,
        family=family,
        rule=samples.thresholds.text,
    )
