"""The page of the search: what it says of a finished, a running, a failed and an absent one."""

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from ensembler.app.search import (
    default_names,
    importance_sentences,
    pruning_sentences,
    rung_table,
    why_none,
)
from ensembler.evaluation.importance import Importance, Importances
from ensembler.figures.search import pruning_frame, trials_frame
from ensembler.store import RunStore
from ensembler.training.candidate import Candidate
from ensembler.training.recipe import Recipe


def _draw(module, path):
    import importlib

    from ensembler.errors import EnsemblerError
    from ensembler.store import RunStore

    try:
        importlib.import_module(f"ensembler.app.{module}").page(RunStore(path))
    except EnsemblerError as error:
        from ensembler.app import states

        states.damaged(error)


@pytest.fixture
def open_search():
    def open_(store):
        app = AppTest.from_function(_draw, args=("search", str(store.path)), default_timeout=120).run()
        assert not app.exception
        return app

    return open_


def record(number, score, trained=8, status="finished", backbone="test_resnet", reason="", **recipe):
    candidate = Candidate(backbone, "random", "full", Recipe(**{"epochs": 8, **recipe}))
    history = [{"epoch": i + 1, "seconds": 2.0, "score": score or 0.0} for i in range(trained)]
    return number, {
        "candidate": candidate.to_dict(),
        "name": candidate.name,
        "status": status,
        "score": score,
        "epochs": trained,
        "seconds": 2.0 * trained,
        "reason": reason,
        "history": history,
    }


@pytest.fixture
def searched(trained):
    """Twelve trials of which the learning rate decides, one stopped, one failed."""
    rng = np.random.default_rng(0)
    for i in range(10):
        lr = float(10 ** rng.uniform(-4, -2))
        trained.write_trial(*record(i, abs(np.log10(lr) + 3) + 0.5, lr=lr))
    trained.write_trial(*record(10, 2.0, 2, "stopped", lr=0.5))
    reason = "NonFiniteLossError: epoch 1, <script>alert(1)</script> *x*"
    trained.write_trial(*record(11, None, 0, "failed", lr=9.0, reason=reason))
    trained.update_manifest(stages={"sweep": 60.0})
    return trained


def test_the_page_answers_its_four_questions(open_search, searched, said):
    app = open_search(searched)
    text = said(app)
    best = min((t for t in searched.trials() if t["score"]), key=lambda t: t["score"])
    assert f"The best of 12 recipes: {best['name']}" in text
    assert f"Log loss, lower is better: {best['score']:.4f}. It was trial {best['number']}" in text
    assert "12 trials: 10 ran to the end, 1 stopped early, 1 failed." in text
    assert [s.value for s in app.subheader] == [
        "What do the best recipes have in common?",
        "Which hyperparameters matter?",
        "What does a better score cost?",
        "What did stopping early save?",
        "Trials that failed",
    ]
    assert {c.key for c in app.get("plotly_chart")} == {"parallel", "importance", "cost", "pruning"}
    assert "96 epochs were planned, 82 of them were trained." not in text, (
        "a failed trial was not planned away"
    )
    assert "88 epochs were planned, 82 of them were trained." in text
    assert "saved 6 epochs: about 12 s" in text
    assert not app.info


def test_failed_trials_stand_with_their_reason_as_text(open_search, searched, said):
    app = open_search(searched)
    failed = next(d.value for d in app.dataframe if "Reason" in d.value)
    assert failed["Reason"].tolist() == ["NonFiniteLossError: epoch 1, <script>alert(1)</script> *x*"]
    for element in app.get("html"):
        assert "<script>" not in element.proto.body


def test_the_table_has_the_best_first_and_the_failed_last(open_search, searched):
    table = open_search(searched).dataframe[-1].value
    assert len(table) == 12
    assert table["Score"].iloc[:11].is_monotonic_increasing
    assert table["Ended"].iloc[-1] == "failed"
    assert "Learning rate" in table
    assert "Dropout" not in table, "all trials have the same"


def test_hyperparameters_can_be_chosen(open_search, searched):
    for number, values in enumerate(
        [{"dropout": 0.2, "flip": False}, {"dropout": 0.1, "flip": True}], start=20
    ):
        searched.write_trial(*record(number, 1.0, **values))
    app = open_search(searched)
    assert set(app.multiselect[0].value) == {"lr", "dropout", "flip"}
    app.multiselect[0].set_value(["dropout"]).run()
    assert not app.exception
    (figure,) = (c for c in app.get("plotly_chart") if c.key == "parallel")
    assert "dropout" in figure.proto.spec
    assert "mirrored" not in figure.proto.spec
    assert "learning rate" not in figure.proto.spec


def test_few_trials_are_not_interpreted(open_search, trained, said):
    for i in range(4):
        trained.write_trial(*record(i, 1.0 - i / 10, lr=0.001 * (i + 1)))
    trained.update_manifest(stages={"sweep": 60.0})
    app = open_search(trained)
    assert "Too few trials to tell: 4 have a score" in said(app)
    assert "importance" not in {c.key for c in app.get("plotly_chart")}
    assert "32 epochs were planned, 32 of them were trained." in said(app)


def test_trials_that_all_failed_are_shown(open_search, trained, said):
    trained.write_trial(*record(0, None, 0, "failed", reason="out of memory"))
    app = open_search(trained)
    assert "No trial of 1 has a score" in said(app)
    assert app.dataframe[0].value["Reason"].tolist() == ["out of memory"]
    assert not app.get("plotly_chart")


def test_a_running_search_says_so_and_grows(open_search, searched, said):
    manifest = searched.manifest()
    searched.update_manifest(stages={k: v for k, v in manifest["stages"].items() if k != "sweep"})
    app = open_search(searched)
    assert "has not ended yet" in app.info[0].value
    searched.write_trial(*record(12, 0.1, lr=0.03))
    app.button[0].click().run()
    assert "The best of 13 recipes" in said(app)


def test_runs_without_a_search_say_why(open_search, trained, bare, tmp_path, said):
    assert "made from predictions alone" in said(open_search(bare))
    new = RunStore(tmp_path / "new")
    new.update_manifest(name="new", identity={}, metric="log_loss")
    assert "No trial of the search has ended yet" in said(open_search(new))
    new.event("stage", stage="sweep", state="failed", reason="DataError: <b>no</b>")
    assert "stopped in the stage" in said(open_search(new))
    config = trained.config()
    trained.write_config({**config, "search": None})
    assert "search: null" in why_none(trained)


@pytest.mark.parametrize(
    "damage", ['{"number": 3}', "{garbage", '{"number": 3, "candidate": {"recipe": {"lr": 1}}}']
)
def test_a_damaged_trial_is_told(open_search, searched, said, damage):
    (searched.path / "search" / "00003.json").write_text(damage)
    app = open_search(searched)
    assert "This run cannot be shown" in said(app)
    assert str(searched.path.name) in app.error[0].value


def test_the_default_recipe_is_known_whatever_epochs_a_budget_left_it():
    arm = {"backbone": "test_resnet", "weights": "random", "strategy": "full"}
    arm["recipe"] = {**vars(Recipe()), "epochs": 30}
    (_, default), (_, other) = record(0, 1.0, epochs=5), record(1, 1.0, lr=0.5)
    assert default_names([default, other], [arm]) == {default["name"]}
    assert default_names([default], [{**arm, "strategy": "lora"}]) == frozenset()


def test_importance_in_words():
    def named(*parts):
        return Importances(tuple(Importance(*p) for p in parts), 40, 0.6)

    said = importance_sentences(named(("lr", 0.5, 0.3, 0.7), ("dropout", 0.0, -0.1, 0.1)))
    first, second = (line.replace("\N{NO-BREAK SPACE}", " ") for line in said)
    assert first == (
        "The learning rate matters most: about 50 % of the differences in score come from it (likely between 30 % and "
        "70 %). Of the others nothing can be said from 40 trials: dropout."
    )
    assert "60 %" in second
    assert "can be told from none at all" in importance_sentences(named(("lr", 0.1, -0.1, 0.2)))[0]


def test_pruning_in_words():
    made = [record(0, 0.5)[1], record(1, 0.6, 5)[1], record(2, 0.9, 3, "stopped")[1]]
    frame = trials_frame([{"number": i, **t} for i, t in enumerate(made)])
    pruning = pruning_frame(frame)
    text = " ".join(pruning_sentences(pruning, (3, 6.0), frame))
    assert "24 epochs were planned, 16 of them were trained." in text
    assert "Stopping 1 trial saved 5 epochs: about 10 s" in text
    assert "1 trial ended by no longer improving, 3 epochs early." in text
    assert "3 epochs (6 s) were trained once more" in text
    assert rung_table(pruning).to_dict("records") == [
        {"Stopped after epoch": 3, "Trials": 1, "Epochs saved": 5, "Seconds saved": 10.0}
    ]
