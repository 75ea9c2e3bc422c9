"""The Streamlit app: one module a page, and a few small ones that they share.

    main         the script that Streamlit runs: run picker, navigation   server     starts it
    picker       which run, kept in the URL                               reading    a run from disk, cached
    states       empty, unfinished, damaged                               jobs       commands that outlive a page
    wording      names and numbers as text                                charts     how a figure is shown
    following    what a run's log tells, kept up to date                 links      to pages, keeping the run
    advice       what to use, what to know, what to do next
    sweeps       found, started, stopped, resumed                      drafts     the config that is being written
    plans        what a config would do, in words                      trying     a bundle on one image
    download     a bundle as one file
    rows         the leaderboard's table                                  samples    images as networks see them

Pages read the store and call `evaluation` and `figures`. None imports torch or Ray: what needs them, such as
an export, runs as a command in its own process.
"""
