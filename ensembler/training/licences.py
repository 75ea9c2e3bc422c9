"""Licences of published weights: which of them forbid commercial use, and who has agreed to that.

The names are those that timm gives in the settings of its pretrained weights.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from ..errors import WeightsError

#: Licences for research alone whose names do not say so: Apple's Machine Learning Research Model licence ("exclusively
#: for research purposes") and Meta's for SEER ("solely for your non-commercial research purposes"). The others of
#: companies that timm names (dinov3, sapiens2, nvidia-open-model, apple-ascl, gemma, ...) allow commercial use under
#: conditions of their own.
RESEARCH_ONLY = frozenset({"apple-amlr", "seer-license"})

_NON_COMMERCIAL = re.compile(r"(^|[-_ ])(nc|non-?commercial)([-_ ]|$)")


def forbids_commercial_use(licence: str) -> bool:
    """Whether weights under this licence may not be used commercially; False where no licence is known.

    >>> forbids_commercial_use("cc-by-nc-4.0"), forbids_commercial_use("apache-2.0")
    (True, False)
    """
    name = licence.strip().lower()
    return name in RESEARCH_ONLY or _NON_COMMERCIAL.search(name) is not None


def refuse_unaccepted(backbone: str, licence: str, weights: str, accepted: Collection[str]) -> None:
    """Raises WeightsError where a config asks for published weights under terms that it does not accept.

    Args:
        backbone: timm's name.
        licence: of its published weights.
        weights: as in the config; a file of the user's own is the user's own matter.
        accepted: the config's `accept_licenses`.
    """
    if not weights.startswith("pretrained") or not forbids_commercial_use(licence):
        return
    if licence.lower() not in {name.lower() for name in accepted}:
        raise WeightsError(
            f"backbone {backbone!r}: its weights are under {licence}, which forbids commercial use; "
            f"write `accept_licenses: [{licence}]` to agree, or choose another backbone"
        )
