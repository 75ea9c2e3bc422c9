"""One image, one answer: `python -m ensembler.bundle.ask BUNDLE < image` prints what the bundle and its members say.

The app asks in this way, because it must not import torch. The picture comes on standard input, so it lies in no file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.decode import load_pixels
from ..errors import EnsemblerError
from .runtime import Bundle


def ask(bundle: Bundle, image: bytes) -> dict[str, Any]:
    """The answer to one image, JSON-able.

    Returns:
        `classes`; `proba`, one a class; `members`, each with its `name` and its own `proba`.

    Raises:
        UnreadableImageError: the bytes are no image.
    """
    pixels = load_pixels(image, bundle.image_size, name="the image")[None]
    proba, votes = bundle.answer(pixels)
    return {
        "classes": list(bundle.classes),
        "proba": proba[0].tolist(),
        "members": [
            {"name": name, "proba": vote.tolist()}
            for name, vote in zip(bundle.members, votes[:, 0], strict=True)
        ],
    }


def main(argv: Sequence[str], image: bytes) -> int:
    """Prints the answer as JSON; 2 and one line on standard error where there is none."""
    try:
        (folder,) = argv
        print(json.dumps(ask(Bundle.load(Path(folder)), image)))
    except EnsemblerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdin.buffer.read()))
