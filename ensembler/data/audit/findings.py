"""What an audit found: findings with a level, as text for a person and as JSON for a program."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ...errors import printable

#: `error`: a run would refuse the data, or its verdict would not hold. `warning`: somebody ought to look. `note`: the
#: run takes care of it, or it is merely odd.
Level = Literal["error", "warning", "note"]

LEVELS: tuple[Level, ...] = ("error", "warning", "note")

#: Items of a finding that the text shows; JSON has them all.
SHOWN = 6


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, odd, or worth knowing.

    Attributes:
        level: see `Level`.
        kind: a word for programs, such as `leak`.
        what: a sentence for people.
        items: what it is about: image ids and what is said of each.
        advice: what to do; "" where there is nothing to do.
    """

    level: Level
    kind: str
    what: str
    items: tuple[str, ...] = ()
    advice: str = ""


@dataclass(frozen=True)
class Audit:
    """All findings about the images of a config.

    Attributes:
        classes: readable training images of each class.
        n_test: readable test images.
        findings: the gravest first.
    """

    classes: Mapping[str, int]
    n_test: int
    findings: tuple[Finding, ...]

    def of(self, level: Level) -> tuple[Finding, ...]:
        """The findings of one level."""
        return tuple(finding for finding in self.findings if finding.level == level)

    @property
    def stands(self) -> bool:
        """Whether a run would start and its verdict would hold: there is no error."""
        return not self.of("error")

    def to_text(self) -> str:
        """Several lines; names are shown without control characters."""
        n = sum(self.classes.values())
        lines = [
            f"{_n(n, 'training image')} in {_n(len(self.classes), 'class')}, {_n(self.n_test, 'test image')}"
        ]
        for finding in self.findings:
            lines.append(f"\n{finding.level + ':':<9}{printable(finding.what)}")
            lines += [f"           {printable(item)}" for item in finding.items[:SHOWN]]
            if len(finding.items) > SHOWN:
                lines.append(f"           and {len(finding.items) - SHOWN} more (--format json has all)")
            if finding.advice:
                lines.append(f"         > {printable(finding.advice)}")
        counts = ", ".join(_n(len(self.of(level)), level) for level in LEVELS)
        meaning = (
            "nothing that would invalidate a verdict"
            if self.stands
            else "a verdict on these images would not hold"
        )
        return "\n".join([*lines, f"\n{counts}: {meaning}"])

    def to_json(self) -> str:
        """One object: classes, test_images, findings, stands; in ASCII."""
        values: dict[str, Any] = {
            "classes": dict(self.classes),
            "test_images": self.n_test,
            "findings": [asdict(finding) for finding in self.findings],
            "stands": self.stands,
        }
        return json.dumps(values, indent=2)


def _n(n: int, one: str) -> str:
    many = f"{one}es" if one.endswith("s") else f"{one}s"
    return f"{n:,} {one if n == 1 else many}"
