"""The Region Relevance Network: first of all, is this Python the one of the environment?"""

from rrn import environment

environment.require()
