import sys
import time

import pytest

from ensembler.app import export, jobs
from ensembler.app.export import bundle_path, command

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
    from ensembler.cli import parser

    words = command(tmp_path, "--debug", tmp_path / "b")
    assert words[:3] == [sys.executable, "-m", "ensembler"]
    parsed = parser().parse_args(words[3:])
    assert (parsed.run_dir, parsed.ensemble, parsed.output) == (tmp_path, "--debug", tmp_path / "b")


def test_predictions_alone_cannot_be_exported(open_page, bare):
    app = open_page("export", bare)
    assert "holds no models" in app.info[0].value
    assert not app.button


def settle(app, seconds=20):
    end = time.monotonic() + seconds
    while app.status and time.monotonic() < end:
        time.sleep(0.05)
        app.run()
    assert not app.exception
    return app


def stand_in(code):
    """In the place of the export, which needs torch and trained weights; `test_browser.py` runs the real one."""
    return lambda run, row, target: [sys.executable, "-c", code, str(target)]


WRITE = """
import pathlib, sys, time
time.sleep(0.5)
target = pathlib.Path(sys.argv[1]); target.mkdir(parents=True)
(target / "bundle.json").write_text("{}")
(target / "README.md").write_text("---\\nlibrary_name: ensembler\\n---\\n\\n# The card\\n\\nof it\\n")
"""


def test_export_shows_progress_the_place_the_next_command_and_the_card(open_page, trained, said, monkeypatch):
    monkeypatch.setattr(export, "command", stand_in(WRITE))
    app = open_page("export", trained)
    winner = app.selectbox[0].value
    app.button[0].click().run()
    assert app.status[0].label.startswith("Exporting for")
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


def test_one_job_a_target(tmp_path):
    wait = [sys.executable, "-c", "import sys; sys.stderr.write('a'); sys.stderr.flush(); input()"]
    first = jobs.start(tmp_path / "t", [sys.executable, "-c", "import time; time.sleep(1)"])
    assert jobs.start(tmp_path / "t", wait) is first, "it is not started twice"
    assert first.running
    assert not first.ok
    while first.running:
        time.sleep(0.05)
    assert first.ok
    assert first.seconds >= 1
    assert jobs.find(tmp_path / "other") is None


def test_what_a_job_says_is_read_while_it_writes():
    code = "import sys\nfor i in range(2000): print('line', i, file=sys.stderr, flush=True)"
    job = jobs.Job([sys.executable, "-c", code])
    while job.running:
        job.said()
    assert job.said(most=100_000).split("\n") == [f"line {i}" for i in range(2000)]
    assert job.said(most=10) == "line 1999"
