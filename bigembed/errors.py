"""The one kind of error that a user is meant to read."""


class UserError(Exception):
    """Something the user gave cannot be used; the message is one sentence that says what, where, and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """
