"""Which pseudo-labels can be trusted? No torch.

measures: do high scores go with right pixels? AUROC, risk and coverage, calibration, from a table of regions.
evidence: evidence.zip, written and read: regions, scores and pictures of a finished run.
A new measure is a function in measures; a new score comes from `rrn.method`.
"""
