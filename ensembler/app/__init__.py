"""The Streamlit app: one module a page, and a few small ones that they share.

    launch       starts the server            main         the script it runs: run picker, navigation
    picker       which run, kept in the URL   reading      a run from disk, cached until its files change
    states       empty, unfinished, damaged   leaderboard  compare  export       the pages
    wording      names and numbers as text    charts       how a figure is shown
    rows         the leaderboard's table      jobs         commands that outlive a page

Pages read the store and call `evaluation` and `figures`. None imports torch or Ray: what needs them, such as
an export, runs as a command in its own process.
"""
