"""Files, locks, processes and random numbers: what any program of experiments needs. Of segmentation it knows nothing.

atomic_io: a file is there whole, or not at all; csv_files: tables, the same numbers the same bytes.
places: paths as users write them; locking: one process for an output.
processes: a child that ends with its parent; signals: SIGTERM and Ctrl-C wait for the end of a step.
seeding: every random draw, a function of (seed, purpose, step, index).
errors: what is wrong in the settings.
distributed: sums over processes, gradients summed after backward; what was dealt, put back in order.
memory: memory that does not suffice, told with the settings that need less.
tracking: metrics of runs and rows, and curves, as files that DVC shows.
source: code without its remarks; portable: the switches that decide the bits.
"""
