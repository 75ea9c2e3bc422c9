"""The numbers behind the figures of a search, on trials that are made by hand."""

import json
import math

import numpy as np
import pytest

from ensembler.figures.search import (
    importance_figure,
    importance_frame,
    parallel_figure,
    parallel_frame,
    pruning_figure,
    pruning_frame,
    repeated_epochs,
    round_numbers,
    scored_trials,
    search_cost_figure,
    search_cost_frame,
    searched_parameters,
    short,
    shown_value,
    trials_frame,
)
from ensembler.metrics import METRICS
from ensembler.training.candidate import Candidate
from ensembler.training.recipe import Recipe

LOSS = METRICS["log_loss"]


def trial(
    number, score, trained=8, status="finished", backbone="resnet", epochs=8, second=2.0, reason="", **recipe
):
    candidate = Candidate(backbone, "random", "full", Recipe(epochs=epochs, **recipe))
    epoch = {"seconds": second, "score": score}
    history = [{"epoch": i + 1, **epoch} for i in range(trained)]
    return {
        "number": number,
        "name": candidate.name,
        "candidate": candidate.to_dict(),
        "status": status,
        "score": score,
        "epochs": trained,
        "seconds": second * trained + 1,
        "reason": reason,
        "history": history,
    }


@pytest.fixture
def trials():
    return [
        trial(0, 0.9, lr=1e-3),
        trial(1, 0.5, lr=4e-3, backbone="<b>vit</b>", second=5.0),
        trial(2, 1.5, 2, "stopped", lr=2e-2),
        trial(3, 1.4, 4, "stopped", lr=1e-4, policy="rand"),
        trial(4, None, 0, "failed", lr=9.0, reason="NonFiniteLossError: epoch 1, step 3"),
        trial(5, 0.8, 6, lr=2e-3),
    ]


def test_trials_are_rows_with_all_they_chose(trials):
    frame = trials_frame(trials)
    assert list(frame["status"]) == ["finished", "finished", "stopped", "stopped", "failed", "finished"]
    assert math.isnan(frame["score"][4])
    assert frame.loc[1, ["trained", "epochs", "seconds", "epoch_s", "start"]].tolist() == [
        8,
        8,
        41.0,
        5.0,
        "random",
    ]
    assert searched_parameters(frame) == ["backbone", "lr", "policy"]
    assert list(scored_trials(frame)["number"]) == [0, 1, 2, 3, 5]
    assert searched_parameters(scored_trials(frame).head(1)) == []
    assert trials_frame([]).empty
    assert searched_parameters(trials_frame([])) == []


def test_parallel_coordinates_lie_between_least_and_greatest(trials):
    frame = parallel_frame(trials_frame(trials), LOSS)
    assert list(dict.fromkeys(frame["parameter"])) == ["backbone", "lr", "policy", "score"]
    assert frame["position"].between(0, 1).all()
    lr = frame[frame["parameter"] == "lr"].set_index("number")
    assert (lr["scale"] == "log scale").all()
    assert lr.loc[3, "position"] == 0
    assert lr.loc[2, "position"] == 1
    assert lr.loc[0, "position"] == pytest.approx(math.log(10) / math.log(200))
    score = frame[frame["parameter"] == "score"].set_index("number")
    assert score.loc[1, "position"] == 1, "a small loss is good: on the right"
    assert score.loc[2, "position"] == 0
    accuracy = parallel_frame(trials_frame(trials), METRICS["accuracy"])
    assert accuracy[accuracy["parameter"] == "score"].set_index("number").loc[2, "position"] == 1
    backbone = frame[frame["parameter"] == "backbone"]
    assert backbone["category"].all()
    assert set(backbone["position"]) == {0.0, 1.0}


def test_fifths_go_from_the_best_to_the_worst_and_the_best_are_drawn(trials):
    frame = parallel_frame(trials_frame(trials), LOSS, ["lr"])
    fifths = frame.drop_duplicates("number").set_index("number")["fifth"]
    assert fifths.to_dict() == {1: 0, 5: 1, 0: 2, 3: 3, 2: 4}
    best = parallel_frame(trials_frame(trials), LOSS, ["lr"], most=2)
    assert set(best["number"]) == {1, 5}


def test_a_score_far_off_leaves_room_for_the_others(trials):
    trials[2]["score"] = 1e6
    frame = parallel_frame(trials_frame(trials), LOSS)
    score = frame[frame["parameter"] == "score"].set_index("number")
    assert (score["scale"] == "by rank").all()
    assert score["position"].to_dict() == {2: 0.0, 3: 0.25, 0: 0.5, 5: 0.75, 1: 1.0}


def test_the_figure_has_a_line_a_trial_and_names_are_text(trials):
    frame = parallel_frame(trials_frame(trials), LOSS)
    figure = parallel_figure(frame, "log_loss")
    slanted = [t for t in figure.data if t.mode == "lines" and t.opacity > 0.5]
    assert sum(list(t.x).count(None) for t in slanted) == 5 * 3, "five trials between four axes"
    assert {t.line.dash for t in slanted} == {"solid", "dot"}
    marks = [t for t in figure.data if t.mode == "markers"]
    assert sum(len(t.x) for t in marks) == 5 * 4
    assert [t.name for t in marks if t.showlegend] == ["Worst fifth", "Best fifth"]
    best = [t for t in slanted if t.legendgroup == "Best fifth"]
    assert best[0].line.width == max(t.line.width for t in slanted)
    assert list(best[0].x)[:2] == [0.0, pytest.approx(math.log(40) / math.log(200))], "of trial 1"
    assert "<b>vit</b>" not in json.dumps(json.loads(figure.to_json()))
    assert any("learning rate" in a.text for a in figure.layout.annotations)
    assert any(a.text == "best 0.5" for a in figure.layout.annotations)


def test_importance_is_of_the_trials_with_a_score():
    rng = np.random.default_rng(0)
    rates = 10 ** rng.uniform(-4, -2, 30)
    made = [
        trial(i, abs(math.log10(lr) + 3), lr=float(lr), dropout=float(rng.uniform()))
        for i, lr in enumerate(rates)
    ]
    made.append(trial(30, None, 0, "failed", lr=1.0))
    frame, shares = importance_frame(trials_frame(made), n_boot=40)
    assert shares.n_trials == 30
    assert frame["parameter"][0] == "lr"
    assert frame["matters"].tolist() == [True, False]
    figure = importance_figure(frame)
    assert [t.name for t in figure.data] == ["Matters", "Cannot be told from no influence"]
    assert figure.data[0].x[0] + figure.data[0].error_x.array[0] == pytest.approx(frame["high"][0])
    few, none = importance_frame(trials_frame(made[:5]))
    assert few.empty
    assert not none.enough


def test_the_front_joins_what_no_cheaper_trial_equals(trials):
    frame = search_cost_frame(trials_frame(trials), LOSS)
    front = frame[frame["front"]].set_index("number")["seconds"]
    assert front.to_dict() == {2: 5.0, 3: 9.0, 5: 13.0, 1: 41.0}, "trial 0 costs more than 5 and is worse"
    figure = search_cost_figure(frame, "log_loss")
    assert list(figure.data[0].x) == sorted(front)
    resnet = next(t for t in figure.data if t.name == "resnet")
    assert list(resnet.marker.symbol) == ["circle", "circle-open", "circle-open", "circle"]
    assert {t.name for t in figure.data[1:]} == {"resnet", "&lt;b&gt;vit&lt;/b&gt;"}
    assert "lower is better" in figure.layout.yaxis.title.text


def test_what_stopping_saved_is_counted_by_epoch(trials):
    frame = pruning_frame(trials_frame(trials))
    assert list(frame["epoch"]) == list(range(1, 9))
    assert list(frame["planned"]) == [5] * 8, "a failed trial was not stopped"
    assert list(frame["trained"]) == [5, 5, 4, 4, 3, 3, 2, 2]
    assert list(frame["stopped"]) == [0, 1, 0, 1, 0, 0, 0, 0]
    assert list(frame["epochs_saved"]) == [0, 6, 0, 4, 0, 0, 0, 0]
    assert list(frame["seconds_saved"]) == [0, 12.0, 0, 8.0, 0, 0, 0, 0]
    figure = pruning_figure(frame)
    assert [t.name for t in figure.data] == ["Planned", "Trained"]
    assert figure.layout.barmode == "overlay"


def test_a_trial_without_epochs_is_priced_like_its_backbone():
    made = [trial(0, 0.5, second=3.0), trial(1, 0.9, 0, "stopped")]
    frame = pruning_frame(trials_frame(made))
    assert frame["epochs_saved"].sum() == 0, "stopped before its first epoch: at no rung"
    made[1] = trial(1, 0.9, 1, "stopped", second=4.0)
    assert pruning_frame(trials_frame(made))["seconds_saved"].sum() == 28.0


def test_epochs_that_were_trained_again_are_counted(trials):
    def epoch(number, stage="search"):
        return {"kind": "epoch", "stage": stage, "number": number, "seconds": 2.0}

    frame = trials_frame(trials)
    events = [epoch(5)] * 6 + [epoch(2)] * 2
    assert repeated_epochs(frame, events) == (0, 0.0)
    promoted = [epoch(0)] * 3 + [epoch(0)] * 8 + [epoch(0, "crossval")] * 8
    assert repeated_epochs(frame, events + promoted) == (3, 6.0)
    assert repeated_epochs(frame, []) == (0, 0.0)


def test_values_and_names_are_short():
    assert [shown_value(v) for v in (0.00286553, 64, np.int64(3), True, "rand")] == [
        "0.00287",
        "64",
        "3",
        "yes",
        "rand",
    ]
    assert short("mobilenetv4_conv_small_035", 12) == "mobile…l_035"
    assert short("resnet10t", 12) == "resnet10t"
    assert round_numbers(15, 170) == [10.0, 20.0, 50.0, 100.0, 200.0]
    assert round_numbers(0.6, 2.1) == [0.5, 1.0, 2.0, 5.0]
