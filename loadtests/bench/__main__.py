"""`python -m loadtests.bench`: the same as `holdfast bench`."""

import sys

from app.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "bench")
    main()
