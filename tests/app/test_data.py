"""The page of the data: classes, folds, copies and leaks, and the pictures that networks see."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from ensembler.app import jobs, samples
from ensembler.app.data import class_sentences, copies_sentence, copies_table, index_sets, look, size_sentence
from ensembler.errors import DataError
from ensembler.figures.data import class_counts_frame, sizes_frame
from ensembler.folds import make_folds
from ensembler.store import RunStore
from ensembler.training.candidate import Candidate, digest
from ensembler.training.recipe import Recipe

HOSTILE = "<script>alert(1)</script>"


def _draw(path):
    from ensembler.app import data, states
    from ensembler.errors import EnsemblerError
    from ensembler.store import RunStore

    try:
        data.page(RunStore(path))
    except EnsemblerError as error:
        states.damaged(error)


@pytest.fixture
def open_data():
    def open_(store):
        app = AppTest.from_function(_draw, args=(str(store.path),), default_timeout=120).run()
        assert not app.exception
        return app

    return open_


@pytest.fixture
def pictured(trained, tmp_path):
    """The run with a picture on disk for each of its images, its folds the run's own, and a test split."""
    table = trained.table()
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(len(table) + 6):
        pixels = rng.integers(0, 255, (10 + i % 3, 12, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    table["path"] = [str(folder / f"{i}.png") for i in range(len(table))]
    test = table.head(6).assign(
        id=[f"t{i}" for i in range(6)],
        path=[str(folder / f"{len(table) + i}.png") for i in range(6)],
        split="test",
        fold=-1,
    )
    table = pd.concat([table, test], ignore_index=True)
    trained.write_table(table)
    classes = trained.manifest()["classes"]
    oof = table[table["split"] == "oof"]
    labels = np.array([classes.index(label) for label in oof["label"]])
    settings = trained.config()["folds"]
    folds = make_folds(
        labels,
        3,
        settings["seed"],
        predefined=oof["fold"].to_numpy(np.int64),
        monitor_fraction=settings["monitor"],
    )
    drawn = digest([[list(map(int, part)) for part in (f.train, f.monitor, f.holdout)] for f in folds])
    trained.update_manifest(identity={**trained.manifest()["identity"], "folds": drawn}, test_images=6)
    return trained


def copy_of(store, source, target):
    """Puts the bytes of one image where another lies."""
    table = store.table().set_index("id")
    Path(table.loc[target, "path"]).write_bytes(Path(table.loc[source, "path"]).read_bytes())


def test_classes_folds_and_index_sets_are_shown(open_data, pictured, said):
    app = open_data(pictured)
    text = said(app)
    assert "240 images in 3 classes, 6 test images beside them" in text
    assert {c.key for c in app.get("plotly_chart")} == {"classes", "folds"}
    (sets,) = (d.value for d in app.dataframe if "Monitor" in d.value)
    assert (sets[["Train", "Monitor", "Holdout"]].sum(axis=1) == 240).all()
    assert sets["Holdout"].tolist() == [80, 80, 80]
    unreadable = next(d.value for d in app.dataframe if "Reason" in d.value)
    assert unreadable.to_numpy().tolist() == [["broken.jpg", "cannot be decoded"]]
    assert "1 image could not be read and was left out." in text


def test_index_sets_that_are_not_the_runs_are_not_shown(open_data, pictured, said):
    config = pictured.config()
    config["folds"]["monitor"] = 0.4
    pictured.write_config(config)
    app = open_data(pictured)
    assert "can no longer be drawn as the run has them" in said(app)
    assert not [d for d in app.dataframe if "Monitor" in d.value]


def test_groups_stay_together_or_are_told(open_data, pictured, said):
    table = pictured.table()
    whole = table.assign(group=[f"g{f}-{i % 5}" for i, f in enumerate(table["fold"])])
    whole.loc[whole["split"] == "test", "group"] = [f"t{i}" for i in range(6)]
    pictured.write_table(whole)
    assert "15 groups of images that belong together, each in one fold." in said(open_data(pictured))
    torn = whole.copy()
    torn.loc[0, "group"] = torn.loc[1, "group"]
    torn.loc[torn["split"] == "test", "group"] = torn.loc[5, "group"]
    pictured.write_table(torn)
    text = said(open_data(pictured))
    assert f"1 group in more than one fold, such as {torn.loc[1, 'group']}" in text
    assert f"1 group in both training and test images, such as {torn.loc[5, 'group']}" in text


def test_copies_and_leaks_are_found_when_asked_for(open_data, pictured, said):
    fold = pictured.table().set_index("id")["fold"]
    label = pictured.table().set_index("id")["label"]
    same = [i for i in fold.index if label[i] == label["i0"] and fold[i] == fold["i0"] and i[0] == "i"]
    copy_of(pictured, "i0", same[1])
    other = next(i for i in fold.index if label[i] != label["t0"] and i[0] == "i" and i not in same)
    copy_of(pictured, "t0", other)
    app = open_data(pictured)
    assert "246 files are read once" in said(app)
    assert not [d for d in app.dataframe if "Harm" in d.value]
    next(b for b in app.button if b.label == "Read the files").click().run()
    assert not app.exception
    copies = next(d.value for d in app.dataframe if "Harm" in d.value)
    assert copies["Harm"].tolist() == [
        "in training and test: the test score is too good",
        "in one place: counts twice",
    ]
    assert copies["Images"].tolist() == [f"{other}, t0", f"i0, {same[1]}"]
    assert "2 files are copies of another; 1 of them are both training and test images." in said(app)
    assert "sizes" in {c.key for c in app.get("plotly_chart")}
    again = open_data(pictured)
    assert [d for d in again.dataframe if "Harm" in d.value], "kept for every session"


def test_images_that_are_gone_are_told(open_data, trained, said):
    app = open_data(trained)
    next(b for b in app.button if b.label == "Read the files").click().run()
    assert not app.exception
    assert "none of the 240 files is where the run found it" in app.error[0].value


def test_pipes_are_not_opened_and_many_files_are_drawn_from(pictured, tmp_path):
    import os

    table = pictured.table()
    os.mkfifo(tmp_path / "pipe")
    table.loc[0, "path"] = str(tmp_path / "pipe")
    classes = pictured.manifest()["classes"]
    found, n_read = look(table, classes)
    assert n_read == 246
    assert dict(found.unreadable)["i0"] == "is no plain file, or too large"
    some, n_read = look(table, classes, most=50)
    assert n_read == 50
    assert "among the 50 files that were read, of 246" in copies_sentence(some, n_read, 246)
    with pytest.raises(DataError, match="open the app on a machine that has the images"):
        look(table.head(1), classes)


def test_copies_of_two_classes_or_folds_are_told_apart(pictured):
    table = pictured.table().set_index("id")
    oof = table[table["split"] == "oof"]
    a = oof.index[0]
    folded = next(
        i
        for i in oof.index
        if oof.loc[i, "fold"] != oof.loc[a, "fold"] and oof.loc[i, "label"] == oof.loc[a, "label"]
    )
    b = oof.index[10]
    labelled = next(i for i in oof.index[11:] if oof.loc[i, "label"] != oof.loc[b, "label"] and i != folded)
    copy_of(pictured, a, folded)
    copy_of(pictured, b, labelled)
    found, _ = look(pictured.table(), pictured.manifest()["classes"])
    rows = copies_table(found)
    assert rows["Harm"].tolist() == [
        "two classes for one picture: one of the labels is wrong",
        "in two folds: scores are a little too good",
    ]


def test_runs_that_do_not_know_their_images_say_so(open_data, bare, tmp_path, said):
    text = said(open_data(bare))
    assert "240 images in 3 classes" in text
    assert "made from predictions alone" in text
    assert "can no longer be drawn" not in text
    new = RunStore(tmp_path / "new")
    new.update_manifest(name="new", identity={})
    assert "The images are not known yet" in said(open_data(new))
    new.event("stage", stage="sweep", state="failed", reason="DataError: no *such* folder")
    assert "no *such* folder" in said(open_data(new)).replace("\\", "")


@pytest.mark.parametrize("damage", [b"PAR1", b""])
def test_a_damaged_table_is_told(open_data, trained, said, damage):
    (trained.path / "table.parquet").write_bytes(damage)
    app = open_data(trained)
    assert "This run cannot be shown" in said(app)


def test_a_class_of_the_table_that_the_run_does_not_know_is_told(open_data, trained, said):
    table = trained.table()
    table.loc[0, "label"] = "zebra"
    trained.write_table(table)
    assert "This run cannot be shown" in said(open_data(trained))


def test_uneven_classes_are_told_with_what_to_do():
    def counted(**n):
        table = pd.DataFrame({"label": np.repeat(list(n), list(n.values())), "split": "oof"})
        return class_sentences(class_counts_frame(table, list(n)))

    assert counted(a=10, b=9) == ["The classes are about even."]
    assert counted(a=20, b=10) == [
        "The largest class, a, has 2.0 times the images of the smallest, b (10 images)."
    ]
    assert len(counted(a=50, b=1)) == 2
    assert "(1 image)" in counted(a=50, b=1)[0]


def test_sizes_in_words():
    one = sizes_frame(np.array([[30, 20]] * 4))
    assert size_sentence(one, 16) == "All images have 30 × 20 pixels. The networks see 16 × 16."
    two = sizes_frame(np.array([[30, 20]] * 3 + [[100, 90]]))
    assert size_sentence(two, 32) == (
        "2 sizes; the median image has 30 × 20 pixels. The networks see 32 × 32, which enlarges 75% of them."
    )


def test_the_index_sets_are_those_of_the_run(finished_run):
    store = RunStore(finished_run.run)
    table = store.table()
    oof = table[table["split"] == "oof"].reset_index(drop=True)
    manifest = store.manifest()
    labels = np.array([manifest["classes"].index(label) for label in oof["label"]])
    folds = index_sets(oof, labels, store.config(), manifest["identity"])
    assert folds is not None
    assert index_sets(oof, labels, store.config(), {"folds": "else"}) is None
    assert (folds.assignment == oof["fold"]).all()


# ---------------------------------------------------------------------- what networks see


def test_pictures_are_drawn_by_a_command_and_shown(open_data, pictured, said):
    app = open_data(pictured)
    names = [c.name for c in pictured.candidates()]
    network = next(s for s in app.selectbox if s.label == "Candidate")
    assert list(network.options) == names
    assert "Turned, cropped, shifted and recoloured at strength 1 of 2" in said(app)
    next(b for b in app.button if b.label == "Draw some").click().run()
    end = time.monotonic() + 200
    while any(job.running for job in jobs._jobs().values()):
        assert time.monotonic() < end
        time.sleep(0.1)
    app.run()
    assert not app.exception
    (gallery,) = (h.proto.body for h in app.get("html") if "<img" in h.proto.body)
    assert gallery.count("<img") == samples.IMAGES * (samples.DRAWS + 1)
    assert "&lt;script&gt;" in gallery
    assert HOSTILE not in gallery


def test_pictures_that_cannot_be_drawn_say_why(open_data, trained, said):
    app = open_data(trained)
    next(b for b in app.button if b.label == "Draw some").click().run()
    end = time.monotonic() + 200
    while any(job.running for job in jobs._jobs().values()):
        assert time.monotonic() < end
        time.sleep(0.1)
    app.run()
    assert not app.exception
    assert "none of the 6 images can be read" in said(app)


def test_the_command_has_the_candidates_own_recipe(tmp_path):
    candidate = Candidate("test_resnet", "random", "full", Recipe(policy="rand", flip=False))
    line = samples.command(tmp_path / "out", candidate, ["/a b/-x.png"], 96, 3)
    assert line[1:3] == ["-m", "ensembler.training.preview"]
    assert "--backbone=test_resnet" in line
    assert '"policy": "rand"' in next(part for part in line if part.startswith("--recipe="))
    assert line[-2:] == ["--", "/a b/-x.png"]


def test_a_sample_has_as_many_classes_as_can_be():
    oof = pd.DataFrame({"label": ["a"] * 50 + ["b"] * 2 + ["c"], "path": [f"{i}" for i in range(53)]})
    chosen = samples.sample(oof, 3, seed=0)
    assert set(chosen["label"]) == {"a", "b", "c"}
    assert len(samples.sample(oof, 6, seed=0)) == 6
    assert list(samples.sample(oof, 6, 0)["path"]) == list(samples.sample(oof, 6, 0)["path"])
    assert list(samples.sample(oof, 6, 0)["path"]) != list(samples.sample(oof, 6, 1)["path"])


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (Recipe(augment=0.0, flip=False), "No augmentation: the network sees the plain images."),
        (Recipe(policy="trivial"), "One random change each (TrivialAugment), half of them mirrored."),
        (
            Recipe(policy="rand", flip=False, erasing=0.25),
            "2 random changes each, of strength 9 of 30 (RandAugment), a rectangle erased in 25%.",
        ),
        (
            Recipe(augment=0.0, flip=False, mixup=0.2, cutmix=1.0),
            "Blended with one another (mixup), with a patch of another image (CutMix).",
        ),
    ],
)
def test_augmentation_in_words(recipe, expected):
    assert samples.augmentation(recipe) == expected


def test_a_run_of_frozen_features_alone_has_nothing_to_augment(open_data, trained, said):
    probes = [dataclasses.replace(c, strategy="probe").to_dict() for c in trained.candidates()]
    trained.update_manifest(candidates=probes)
    app = open_data(trained)
    assert "Nothing of this run was trained on changed images" in said(app)
    assert not [b for b in app.button if b.label == "Draw some"]


def test_pages_import_no_torch():
    import subprocess
    import sys

    program = "import sys, ensembler.app.data, ensembler.app.search; print({'torch', 'timm', 'ray'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.strip() == "set()"
