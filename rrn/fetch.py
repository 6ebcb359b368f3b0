"""The embedded data: `python -m rrn.fetch`, see `rrn.pipeline.fetch`."""

from rrn.pipeline import fetch

if __name__ == "__main__":
    raise SystemExit(fetch.main())
