"""A run: which one it is, how it goes on after an interruption, what stays when it is finished.

job: its settings, its inputs, and what a resume must find unchanged.
checkpoint: exact resume from the last whole state; finished weights and what they are (run.json).
state: a nested value as tensors and JSON with a checksum, in which no code can hide.
"""
