"""The one kind of error that a user is meant to read."""

import errno


class UserError(Exception):
    """Something the user gave cannot be used; the message is one sentence that says what, where, and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """


def of_the_disk(error: BaseException) -> UserError | None:
    """Return what a full or unwritable disk is to the user; None for another error."""
    if not isinstance(error, OSError):
        return None
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
        return None
    where = f"{error.filename}: " if error.filename else ""
    return UserError(
        f"{where}{error.strerror}; a run that was cut short goes on from its last checkpoint with resume=RUN"
    )
