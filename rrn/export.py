"""A finished run taken away: `python -m rrn.export RUN OUT`, see `rrn.exporting.command`."""

from rrn.exporting import command

if __name__ == "__main__":
    raise SystemExit(command.main())
