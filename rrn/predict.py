"""Labels for images and videos: `python -m rrn.predict RUN IMAGES... OUT`, see `rrn.prediction.command`."""

from rrn.prediction import command

if __name__ == "__main__":
    raise SystemExit(command.main())
