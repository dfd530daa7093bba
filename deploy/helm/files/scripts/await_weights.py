"""Holds an engine back until its weights are there: it would only fail, and its start-up budget would run."""

import sys
import time
from pathlib import Path

LOOK_EVERY_S = 2.0


def main(marker: str) -> int:
    while not Path(marker).exists():
        time.sleep(LOOK_EVERY_S)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
