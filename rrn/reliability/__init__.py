"""Which pseudo-labels can be trusted? No torch.

scores: the scores of regions, by name.
selection: which regions a rule keeps, and how rho weighs them.
measures: do high scores go with right pixels? AUROC, risk and coverage, calibration, from a table of regions.
curves: risk-coverage and calibration curves of a run, at fixed places, small enough for git.
evidence: evidence.zip, written and read: regions, scores and pictures of a finished run.
A new measure is a function in measures, a new score a function in `rrn.evaluation.scores`.
"""
