"""Every setting: what it may be, and what is wrong with one that it may not be. `rrn.config` reads them.

schema: all settings of a run. rows: those that a row of the ablation table may change.
limits: sections, and kinds of values. explain: what is wrong with one, in a line. wording: values in messages.
"""
