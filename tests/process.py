"""The environment that the library reads."""

import ctypes


def set_variable(name: str, value: str) -> None:
    """Set a variable of the process, of whose environment os.environ is a copy."""
    ctypes.CDLL(None).setenv(name.encode(), value.encode(), 1)
