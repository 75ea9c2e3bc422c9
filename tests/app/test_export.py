import io
import json
import os
import sys
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from ensembler.app import download, export, jobs, trying
from ensembler.app.export import bundle_path, command
from ensembler.bundle.layout import file_digest
from ensembler.bundle.monitor.history import append
from ensembler.errors import BundleError, UnreadableImageError

HOSTILE = [
    "../../etc",
    "/etc/passwd",
    "..",
    ".",
    "",
    "-rf",
    "a b",
    "a|b*c_d",
    "<script>",
    "x" * 300,
    "é/../ü",
    "a\0b",
]


@pytest.mark.parametrize("row", HOSTILE)
def test_a_bundle_lies_right_below_the_runs_own_folder(tmp_path, row):
    path = bundle_path(tmp_path / "run", row)
    assert path.resolve().parent == (tmp_path / "run" / "bundles").resolve()
    assert path.name not in ("", ".", "..")
    assert "\0" not in path.name


def test_two_rows_never_share_a_bundle(tmp_path):
    names = [*HOSTILE, "a-b", "a?b", "a-b-c_d", "stacking"]
    assert len({bundle_path(tmp_path, name) for name in names}) == len(names)
    assert bundle_path(tmp_path, "stacking").name == "stacking"


def test_the_command_is_the_documented_one(tmp_path):
    from ensembler.arguments import parser

    words = command(tmp_path, "--debug", tmp_path / "b")
    assert words[:3] == [sys.executable, "-m", "ensembler"]
    parsed = parser().parse_args(words[3:])
    assert (parsed.run_dir, parsed.ensemble, parsed.output) == (tmp_path, "--debug", tmp_path / "b")


def test_predictions_alone_cannot_be_exported(open_page, bare):
    app = open_page("export", bare)
    assert "holds no models" in app.info[0].value
    assert not app.button


def settle(app, seconds=120):
    end = time.monotonic() + seconds
    while app.status and time.monotonic() < end:
        time.sleep(0.05)
        app.run()
    assert not app.exception
    return app


def stand_in(code, *more):
    """In the place of the export, which needs torch and trained weights; `test_browser.py` runs the real one."""
    return lambda run, row, target: [sys.executable, "-c", code, str(target), *map(str, more)]


WRITE = """
import pathlib, sys, time
while not pathlib.Path(sys.argv[2]).exists():
    time.sleep(0.02)
target = pathlib.Path(sys.argv[1]); target.mkdir(parents=True)
(target / "bundle.json").write_text("{}")
(target / "README.md").write_text("---\\nlibrary_name: ensembler\\n---\\n\\n# The card\\n\\nof it\\n")
"""


def test_export_shows_progress_the_place_the_next_command_and_the_card(
    open_page, trained, said, monkeypatch, tmp_path
):
    monkeypatch.setattr(export, "command", stand_in(WRITE, tmp_path / "seen"))
    app = open_page("export", trained)
    winner = app.selectbox[0].value
    app.button[0].click().run()
    assert app.status[0].label.startswith("Exporting for")
    (tmp_path / "seen").touch()
    settle(app)
    assert "The bundle is there" in app.success[0].value
    assert f"ensembler predict {trained.path}/bundles/{winner} IMAGES" in said(app)
    assert any(m.value.strip() == "### The card\n\nof it" for m in app.markdown), "without its front matter"
    assert app.button[0].label == "Write it again"


def test_a_failed_export_says_why(open_page, trained, monkeypatch):
    code = "import sys; sys.exit('error: no space left on `device` <b>')"
    monkeypatch.setattr(export, "command", stand_in(code))
    app = open_page("export", trained)
    app.button[0].click().run()
    settle(app)
    assert app.error[0].value == "The export failed:"
    assert "error: no space left on `device` <b>" in [c.value for c in app.code]
    assert app.button[0].label == "Export", "it can be tried again"


def test_any_row_can_be_chosen(open_page, trained):
    app = open_page("export", trained)
    row = next(option for option in app.selectbox[0].options if "convnext" in option)
    app.selectbox[0].set_value(row).run()
    assert app.code[0].value == str(trained.path / "bundles" / row)
    assert f"--ensemble={row}" in app.code[1].value


def test_a_bundle_without_its_card_says_so(open_page, trained):
    target = bundle_path(trained.path, open_page("export", trained).selectbox[0].value)
    target.mkdir(parents=True)
    (target / "bundle.json").write_text("{}")
    assert "is missing" in open_page("export", trained).warning[0].value


def batch(p_value):
    return {
        "time": "2026-01-01 00:00:00",
        "images": 40,
        "threshold": 0.01,
        "alarm": p_value < 0.01,
        "tests": [{"name": "embeddings", "adjusted": p_value, "alarm": p_value < 0.01}],
    }


def test_what_monitoring_has_found_is_drawn(open_page, trained, said):
    target = bundle_path(trained.path, open_page("export", trained).selectbox[0].value)
    target.mkdir(parents=True)
    (target / "bundle.json").write_text("{}")
    app = open_page("export", trained)
    assert f"ensembler monitor {target} -o {trained.path}/monitor/{target.name} IMAGES" in said(app)
    assert not app.get("plotly_chart")
    folder = trained.path / "monitor" / target.name
    append(folder, batch(0.4))
    app = open_page("export", trained)
    assert "The latest batch is like the training data." in [s.value for s in app.success]
    assert len(app.get("plotly_chart")) == 1
    append(folder, batch(0.001))
    app = open_page("export", trained)
    assert "The latest batch raised an alarm: embeddings." in [e.value for e in app.error]
    assert "2 batches so far, 1 alarm." in [c.value for c in app.caption]


def test_one_job_a_target(tmp_path):
    code = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.02)"
    wait = [sys.executable, "-c", code, str(tmp_path / "enough")]
    began = time.monotonic()
    first = jobs.start(tmp_path / "t", wait)
    assert jobs.start(tmp_path / "t", [sys.executable, "-c", ""]) is first, "it is not started twice"
    assert first.running
    assert not first.ok
    time.sleep(0.1)
    assert 0.1 <= first.seconds <= time.monotonic() - began
    (tmp_path / "enough").touch()
    while first.running:
        time.sleep(0.05)
    assert first.ok
    assert jobs.find(tmp_path / "other") is None
    assert list(jobs.below(tmp_path)) == [tmp_path / "t"]
    jobs.forget(tmp_path / "t")
    assert jobs.find(tmp_path / "t") is None


def test_what_a_job_says_is_read_while_it_writes():
    code = "import sys\nfor i in range(2000): print('line', i, file=sys.stderr, flush=True)"
    job = jobs.Job([sys.executable, "-c", code])
    while job.running:
        job.said()
    assert job.said(most=100_000).split("\n") == [f"line {i}" for i in range(2000)]
    assert job.said(most=10) == "line 1999"


def test_a_job_reads_what_it_is_given_and_its_output_is_kept_apart():
    code = "import sys; data = sys.stdin.buffer.read(); print(len(data)); sys.exit('and an error')"
    job = jobs.Job([sys.executable, "-c", code], given=bytes(300_000))
    while job.running:
        time.sleep(0.02)
    assert (job.printed(), job.said(), job.ok) == ("300000", "and an error", False)


# ---------------------------------------------------------------------- download


@pytest.fixture
def bundle(tmp_path):
    """The files of a bundle; nothing in it predicts."""
    return write_bundle(tmp_path / "pets" / "bundles" / "mean")


def write_bundle(target):
    (target / "members" / "0").mkdir(parents=True)
    (target / "members" / "0" / "0.safetensors").write_bytes(bytes(1_500_000))
    (target / "README.md").write_text("# The card")
    files = {name: file_digest(target / name) for name in ("members/0/0.safetensors", "README.md")}
    index = {
        "format": 1,
        "classes": ["a", "b"],
        "name": "mean",
        "image_size": 8,
        "members": [],
        "combiner": None,
        "files": files,
    }
    (target / "bundle.json").write_text(json.dumps(index))
    return target


def test_the_zip_holds_the_bundle_and_nothing_else(bundle):
    (bundle / "secret").write_text("no part of it")
    with zipfile.ZipFile(download.zipped(bundle)) as archive:
        assert sorted(archive.namelist()) == [
            "mean/README.md",
            "mean/bundle.json",
            "mean/members/0/0.safetensors",
        ]
        assert archive.read("mean/README.md") == b"# The card"
        assert archive.testzip() is None
    assert download.download_name(bundle) == "pets-mean.zip"
    assert download.megabytes(download.size_of(bundle)) == "1.5 MB"


def test_the_zip_is_built_once_an_export(bundle):
    first = download.zipped(bundle)
    before = first.stat().st_ino
    assert download.zipped(bundle).stat().st_ino == before
    times = (bundle / "bundle.json").stat()
    (bundle / "bundle.json").write_text((bundle / "bundle.json").read_text() + " ")
    # Both within a tick of the clock.
    os.utime(bundle / "bundle.json", ns=(times.st_atime_ns, times.st_mtime_ns))
    again = download.zipped(bundle)
    assert again.stat().st_ino != before
    with zipfile.ZipFile(again) as archive:
        assert archive.read("mean/bundle.json") == (bundle / "bundle.json").read_bytes()
    assert first.parent == bundle.parent


def test_a_zip_that_is_damaged_is_built_again(bundle):
    target = download.zipped(bundle)
    whole = target.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2]):
        target.write_bytes(damaged)
        with zipfile.ZipFile(download.zipped(bundle)) as archive:
            assert archive.testzip() is None


def test_a_damaged_bundle_is_not_sent(bundle):
    (bundle / "README.md").write_text("# Another card")
    with pytest.raises(BundleError, match="altered since the export"):
        download.zipped(bundle)
    (bundle / "README.md").unlink()
    (bundle / "README.md").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match="symbolic link"):
        download.zipped(bundle)
    assert not list(bundle.parent.glob(".*"))


def test_the_download_says_its_size(open_page, trained, said):
    write_bundle(bundle_path(trained.path, open_page("export", trained).selectbox[0].value))
    assert "Download (1.5 MB)" in said(open_page("export", trained))


def test_what_is_too_large_for_a_browser_is_copied_by_hand(open_page, trained, said, monkeypatch):
    write_bundle(bundle_path(trained.path, open_page("export", trained).selectbox[0].value))
    monkeypatch.setattr(export, "MOST_DOWNLOADED", 1_000_000)
    app = open_page("export", trained)
    assert "too large to download" in said(app)
    assert "Download (" not in said(app)


# ---------------------------------------------------------------------- trying it


def picture(size=(40, 30), mode="RGB", colour=(200, 30, 30)):
    stream = io.BytesIO()
    Image.new(mode, size, colour).save(stream, "PNG")
    return stream.getvalue()


ANSWER = {
    "classes": ["cat", "a|b*c_d", "<script>alert(1)</script>"],
    "proba": [0.1, 0.2, 0.7],
    "members": [
        {"name": "one", "proba": [0.0, 0.1, 0.9]},
        {"name": "two", "proba": [0.1, 0.6, 0.3]},
    ],
}

#: Says how many bytes came, then answers.
ANSWERS = f"""
import sys
assert len(sys.stdin.buffer.read()) > 50
print({json.dumps(ANSWER)!r})
"""


@pytest.fixture
def open_exported(open_page, trained, monkeypatch):
    """The page of a run whose recommended row has been exported, with a stand-in for the bundle's own process."""
    target = bundle_path(trained.path, open_page("export", trained).selectbox[0].value)
    write_bundle(target)

    def open_(code=ANSWERS):
        monkeypatch.setattr(trying, "command", lambda bundle: [sys.executable, "-c", code, str(bundle)])
        return open_page("export", trained)

    return open_


def test_an_image_is_answered_with_probabilities_and_the_votes_of_the_members(open_exported, said):
    app = open_exported()
    app.file_uploader[0].upload("x.png", picture()).run()
    settle(app)
    text = said(app)
    assert "<script>alert(1)</script>, 70.0%" in text
    assert "1 of 2 members say so by themselves." in text
    votes = app.dataframe[0].value
    assert votes["member"].tolist() == ["one", "two"]
    assert votes["label"].tolist() == ["<script>alert(1)</script>", "a|b*c_d"]
    assert votes["probability"].tolist() == [0.9, 0.6]
    assert votes["agrees"].tolist() == [True, False]


def test_another_image_is_asked_anew_and_the_same_is_not(open_exported, monkeypatch):
    asked = []
    real = jobs.start
    monkeypatch.setattr(jobs, "start", lambda *a, **o: asked.append(o) or real(*a, **o))
    app = open_exported()
    app.file_uploader[0].upload("x.png", picture()).run()
    settle(app).run()
    assert len(asked) == 1
    app.file_uploader[0].upload("x.png", picture(colour=(0, 0, 9))).run()
    settle(app)
    assert [o["given"] for o in asked] == [picture(), picture(colour=(0, 0, 9))]


def test_a_bundle_that_does_not_answer_says_why_and_is_not_asked_again_and_again(open_exported, monkeypatch):
    asked = []
    real = jobs.start
    monkeypatch.setattr(jobs, "start", lambda *a, **o: asked.append(o) or real(*a, **o))
    app = open_exported("import sys; sys.exit('noise\\nerror: altered since the export *x*')")
    app.file_uploader[0].upload("x.png", picture()).run()
    settle(app).run()
    assert "has not answered: altered since the export *x*" in app.error[0].value.replace("\\", "")
    assert len(asked) == 1


@pytest.mark.parametrize(
    "printed", ["", "[]", "{}", '{"classes": ["a"], "proba": [1, 0], "members": []}', "null"]
)
def test_an_answer_that_is_none_is_refused(printed):
    with pytest.raises(BundleError, match="no answer that can be read"):
        trying.understood(printed)


DISGUISED = {
    "text": b"hello" * 100,
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "html": b"<html><script>alert(1)</script></html>",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "pdf": b"%PDF-1.7\n",
    "zip": b"PK\x03\x04" + bytes(100),
    "empty": b"",
    "cut": picture((200, 200))[:60],
}


@pytest.mark.parametrize("kind", DISGUISED)
def test_what_is_no_image_is_refused_whatever_it_is_called(open_exported, kind):
    app = open_exported()
    app.file_uploader[0].upload("innocent.png", DISGUISED[kind]).run()
    assert not app.exception
    assert "the image" in app.error[0].value
    assert not app.status


def test_pixels_are_counted_in_the_header_before_anything_is_decoded(monkeypatch):
    bomb, small = picture((8000, 8000), "1", 0), picture()
    assert len(bomb) < trying.MAX_BYTES
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UnreadableImageError, match=r"8,000 x 8,000 pixels; at most 50 million"):
        trying.require_small(bomb)
    with pytest.raises(UnreadableImageError, match="at most 20 MB"):
        trying.require_small(bytes(trying.MAX_BYTES + 1))
    assert trying.require_small(small) == small


def test_the_upload_limit_is_the_servers_too(open_exported):
    from ensembler.app.server import SETTINGS

    assert int(SETTINGS["server.maxUploadSize"]) * 1_000_000 == trying.MAX_BYTES
    assert open_exported().file_uploader[0].proto.max_upload_size_mb == 20


def test_certainty_is_never_claimed():
    answer = {"classes": ["a", "b"], "proba": [0.99999, 0.00001]}
    assert trying.words(answer) == "a, more than 99.9%"
    assert trying.words(answer | {"proba": [0.25, 0.75]}) == "b, 75.0%"


def test_the_image_is_kept_nowhere(open_exported, tmp_path, monkeypatch):
    import tempfile

    home = tmp_path / "temporary"
    home.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    app = open_exported()
    app.file_uploader[0].upload("x.png", picture()).run()
    settle(app)
    assert not list(home.rglob("*"))


def test_small_differences_between_probabilities_survive_the_way():
    proba = np.random.default_rng(0).dirichlet(np.ones(4), size=3).astype(np.float32)
    members = [{"name": str(i), "proba": proba[i].tolist()} for i in (1, 2)]
    read = trying.understood(
        json.dumps({"classes": list("abcd"), "proba": proba[0].tolist(), "members": members})
    )
    np.testing.assert_array_equal(np.float32(read["proba"]), proba[0])
    np.testing.assert_array_equal(np.float32([vote for _, vote in read["members"]]), proba[1:])
