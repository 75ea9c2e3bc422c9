"""How a bundle is to be written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import ConfigError

Format = Literal["torch", "onnx", "both"]
Precision = Literal["fp32", "fp16", "int8"]
Collapse = Literal["folds", "refit", "soup", "distill"]


@dataclass(frozen=True)
class ExportOptions:
    """How a row of the leaderboard becomes a bundle.

    Attributes:
        format: `onnx`, one graph; `torch`, safetensors files; `both`. None: a graph, or where torch cannot export an
            architecture as one, safetensors files and a warning.
        precision: of the graph: `fp32`; `fp16`, weights of half the size; `int8`, networks in whole numbers.
        collapse: what runs in place of the k fold models of each member; all but `folds` were trained by the run,
            where its config asked for it.
        max_latency_ms: of one image at batch 1 on this machine; the bundle is measured before it is kept.
    """

    format: Format | None = None
    precision: Precision = "fp32"
    collapse: Collapse = "folds"
    max_latency_ms: float | None = None

    def __post_init__(self) -> None:
        for name, kind in (("format", Format), ("precision", Precision), ("collapse", Collapse)):
            value = getattr(self, name)
            if value not in get_args(kind) and not (name == "format" and value is None):
                raise ConfigError(f"export {name} {value!r}: expected one of {', '.join(get_args(kind))}")
        if self.format == "torch" and self.precision != "fp32":
            raise ConfigError(
                f"export precision {self.precision!r}: safetensors files are as they were trained; use --format onnx"
            )
        if self.max_latency_ms is not None and not self.max_latency_ms > 0:
            raise ConfigError(f"export max_latency_ms {self.max_latency_ms!r}: expected milliseconds above 0")
