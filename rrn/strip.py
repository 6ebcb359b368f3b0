"""Notebooks without outputs: `python -m rrn.strip`, see `rrn.pipeline.strip`."""

import sys

from rrn.pipeline import strip

if __name__ == "__main__":
    raise SystemExit(strip.main(sys.argv[1:]))
