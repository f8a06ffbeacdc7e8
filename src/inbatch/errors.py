"""The one error that a user's mistake raises."""


class ConfigError(ValueError):
    """A mistake in a configuration, a data file or a checkpoint.

    The message is one sentence that names the field, the value and the fix. Entry points print it
    without a stack trace; everything else that is raised is a defect and keeps its trace.
    """
