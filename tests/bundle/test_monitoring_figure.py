"""The history of a monitored bundle as a figure."""

from __future__ import annotations

from ensembler.figures import monitoring_figure, monitoring_frame


def test_every_test_of_every_batch_is_drawn_and_alarms_are_larger() -> None:
    def record(p: float) -> dict[str, object]:
        tests = [
            {"name": "<b>look", "adjusted": p, "alarm": p <= 0.01},
            {"name": "answers", "adjusted": 1.0, "alarm": False},
        ]
        return {"time": "t", "images": 50, "threshold": 0.01, "tests": tests, "alarm": p <= 0.01}

    frame = monitoring_frame([record(0.3), record(0.0)])
    assert frame["batch"].tolist() == [1, 1, 2, 2]
    assert frame["alarm"].tolist() == [False, False, True, False]
    figure = monitoring_figure(frame)
    assert [trace.name for trace in figure.data] == ["&lt;b&gt;look", "answers"]
    assert list(figure.data[0].marker.size) == [7, 13]
    assert min(figure.data[0].y) == 1e-4  # nothing is lost on a logarithmic axis
    assert figure.layout.shapes[0].y0 == 0.01
    assert len(monitoring_frame([])) == 0
    assert len(monitoring_figure(monitoring_frame([])).data) == 0
