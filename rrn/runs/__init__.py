"""A run: which one it is, how it goes on after an interruption, what stays when it is finished.

job: its settings, its inputs, and what a resume must find unchanged.
resume: an interrupted run, `ResumeFolder`: exact resume from the last whole state.
finished: a finished run: its weights, and `RunCard`, what run.json says of them.
"""
