"""The step that failed, once more: `python -m rrn.replay`, see `rrn.training.replay`."""

from rrn.training import replay

if __name__ == "__main__":
    raise SystemExit(replay.main())
