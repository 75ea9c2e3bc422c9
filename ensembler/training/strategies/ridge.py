"""A ridge head on frozen features: least squares instead of likelihood, in a blink, and often as good."""

from __future__ import annotations

from typing import ClassVar

from .probe import Probe


class Ridge(Probe):
    """As `probe`, with the decision values of ridge regression, scaled, for logits."""

    name: ClassVar[str] = "ridge"
    kind: ClassVar[str] = "ridge"
