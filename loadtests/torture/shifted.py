"""`holdfast` on a host whose clock is wrong.

example: python -m loadtests.torture.shifted 86400 serve --port 8001
"""

import sys
import time

import time_machine

from app.cli import main

if __name__ == "__main__":
    shift = float(sys.argv.pop(1))
    with time_machine.travel(time.time() + shift, tick=True):
        main()
