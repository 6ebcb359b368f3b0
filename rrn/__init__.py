"""The Region Relevance Network: `method` is the method, `train` the loop; all else lies in rooms, each with its map.

data, preparation: images and labels; who is labeled.
models, training, runs: networks; a step; a run, resumed and finished.
evaluation, reliability: what a model says of images; which pseudo-labels can be trusted.
plotting, paper, explorer: figures and tables of results, and a widget.
pipeline, runtime: the front door, stages and presets; files, processes, random numbers.

First of all it is asked whether this Python is the one of the environment.
"""

from rrn import environment

environment.require_environment()
