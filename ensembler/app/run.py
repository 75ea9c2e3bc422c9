"""Streamlit's command line, with what the first page needs imported while the server starts and a browser finds it.

python -m ensembler.app.run run main.py ...
"""

from __future__ import annotations

import importlib
import sys
import threading

#: What takes long; none of it imports Streamlit, whose own start must not wait for these.
HEAVY = ("ensembler.store", "ensembler.evaluation.leaderboard", "ensembler.figures", "plotly.graph_objects")


def warm_up() -> None:
    """Imports what pages need. What fails here fails again, and is told, where it is needed."""
    for name in HEAVY:
        try:
            importlib.import_module(name)
        except ImportError:
            return


def main() -> None:
    """Serves."""
    from streamlit.web.cli import main as streamlit

    # Not before Streamlit is there: Plotly, which it sets up, looks into a pandas that is half imported.
    threading.Thread(target=warm_up, daemon=True).start()
    streamlit(sys.argv[1:], prog_name="streamlit")


if __name__ == "__main__":
    main()
