"""Seconds as people read them."""


def duration(seconds: float) -> str:
    """`48 s`, `3 min 05 s` or `2 h 07 min`.

    >>> duration(185.2)
    '3 min 05 s'
    """
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
