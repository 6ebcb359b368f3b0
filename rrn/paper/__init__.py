"""Finished runs to tables and figures of a paper: the ablation and pictures stages alone. No torch.

study: all runs of a study, its tables and figures; pictures: those of images, which need the runs themselves.
collect: runs as DataFrames, what papers report (quoted.csv).
statistics: differences of rows paired over seeds, their intervals, who leads beyond noise.
tables: the tables; validation: the one by which rows are chosen; table_format: a table as CSV, Markdown and LaTeX.
comparisons: training curves, gains, sweeps, partitions; reliability_plots: what scores are worth.
report: all results on one page (`python -m rrn.report`); inline: figures small enough for it.
"""
