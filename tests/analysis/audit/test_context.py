from dataclasses import replace

from analysis.audit import context


def figure(value, *, model="Markov", metric="HR@10", training=context.UNTRAINED, seen="kept"):
    return context.Figure("Data", model, metric, value, training, seen, "source")


def test_row_is_below_a_floor_only_if_it_is_at_every_shared_metric(row):
    floor = [figure(5.0), figure(3.0, metric="NDCG@10")]
    assert context.check_floors(row({"HR@10": "4.9", "NDCG@10": "2.9"}), floor).findings
    assert not context.check_floors(row({"HR@10": "4.9", "NDCG@10": "3.1"}), floor).findings
    assert not context.check_floors(row({"HR@10": "5.0", "NDCG@10": "3.0"}), floor).findings


def test_floors_of_another_protocol_are_left_out(row):
    assert context.check_floors(row({"HR@10": "4.9"}), [figure(5.0, seen="hidden")]).checked == 0


def test_range_of_others_runs(cell):
    figures = [figure(v, model="SASRec", training="softmax loss", seen=s) for v, s in ((6.0, "hidden"), (8.0, "kept"))]
    inside = context.check_others([cell("HR@10", "7.0", model="SASRec")], figures)
    below = context.check_others([cell("HR@10", "5.9", model="SASRec")], figures)
    assert (inside.held, below.held) == (1, 0)
    assert "8.00 with seen items kept" in below.findings[0].sentence


def test_baseline_above_the_method(cell):
    figures = [figure(8.0, model="SASRec", training="softmax loss")]
    assert context.check_best_baseline([cell("HR@10", "7.9")], figures, "Ours").findings
    assert not context.check_best_baseline([cell("HR@10", "8.1")], figures, "Ours").findings


def test_the_second_metric_is_of_the_runs_above_only(cell):
    above, below = ({"model": "SASRec", "training": training} for training in ("softmax loss", "binary loss"))
    figures = [
        figure(8.0, **above),
        figure(6.0, **below),
        *(replace(figure(value, **which), metric="NDCG@10") for value, which in ((4.0, above), (3.0, below))),
    ]
    (finding,) = context.check_best_baseline([cell("HR@10", "7.9"), cell("NDCG@10", "4.2")], figures, "Ours").findings
    assert "In NDCG@10 the same runs reach 4.00 with" in finding.sentence and "4.2 is printed" in finding.sentence
