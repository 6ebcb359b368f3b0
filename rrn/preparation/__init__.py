"""Data sets onto the disk, checked, and who is labeled: all before the first training. No torch.

command: `python -m rrn.data`; download: a public set, complete; archives: fetched, checked and unpacked.
sbd: the labels of SBD as PNG files; published_lists: the partition lists that papers use.
verification: every file opens, fits and means something; facts: what one file holds; stray_files: what no list names.
report: what was found, for the stages that follow.
partitions: who is labeled, a permutation or a published list.
shapes, textures: the embedded set, drawn.
"""
