"""The one exception that a user's input can cause."""


class UserError(ValueError):
    """A mistake the user can mend. The message says the value, the limit and the remedy.

    `main.py` and the converter print it without a traceback and exit with code 2; any other exception is our defect and
    keeps its traceback.
    """
