"""Names out of a file, as a message can have them: a file may put anything there, at any length."""

LONGEST = 80  # characters


def shown(name: object, most: int = LONGEST) -> str:
    """Return a name on one line, without what a terminal would obey, and cut if it is long.

    Parameters
    ----------
    name : object
        What ``str`` makes a text of.
    most : int
        Characters that are kept.
    """
    text = str(name)
    short = text[:most]
    return (short if short.isprintable() else ascii(short)[1:-1]) + "…" * (len(text) > most)
