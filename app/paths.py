"""Where lua/, migrations/ and loadtests/ are: beside the package in a checkout, inside it in a wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def data_folder(name: str) -> Path:
    """The folder `name` that the project ships beside its package."""
    checkout = _PACKAGE.parent / name
    carried = _PACKAGE / "_data" / name
    return carried if carried.is_dir() else checkout
