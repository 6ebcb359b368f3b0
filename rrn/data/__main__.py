"""Data sets on the disk: `python -m rrn.data`, see `rrn.preparation.command`."""

from rrn.preparation import command

if __name__ == "__main__":
    raise SystemExit(command.main())
