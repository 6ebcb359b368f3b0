"""The front door: `python -m rrn.repro`, see `rrn.pipeline.repro`."""

from rrn.pipeline import repro

if __name__ == "__main__":
    raise SystemExit(repro.main())
