"""A notebook as a stage: `python -m rrn.stage`, see `rrn.pipeline.stage`."""

from rrn.pipeline import stage

if __name__ == "__main__":
    raise SystemExit(stage.main())
