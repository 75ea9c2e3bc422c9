"""The app: `streamlit run app.py`, or `streamlit run app.py -- RUNS`."""

from ensembler.app.main import main

main()
