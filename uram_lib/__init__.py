"""A reference replication of URAM, the unified top-down and bottom-up recurrent attention model.

Data flows one way: data -> glimpse -> models -> objectives -> training -> records -> tables.
"""

__version__ = "0.1.0"


class UramError(Exception):
    """A mistake of the user's or of the machine's, told in one line: what was wrong and what is allowed."""
