"""All results on one page: `python -m rrn.report`, see `rrn.paper.report`."""

from rrn.paper import report

if __name__ == "__main__":
    raise SystemExit(report.main())
