"""The one exception a user is meant to read."""


class InputError(ValueError):
    """Something given from outside is wrong: what was expected, what was got, what to do."""
