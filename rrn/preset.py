"""Presets laid on params.yaml: `python -m rrn.preset`, see `rrn.pipeline.presets`."""

from rrn.pipeline import presets

if __name__ == "__main__":
    raise SystemExit(presets.main())
