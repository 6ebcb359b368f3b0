"""From an annotation tool to a folder data set: `python -m rrn.data import`. No torch.

command: what may be said on the command line; source: classes, images and labels, whatever tool they come from.
coco: polygons and run lengths; masks: CVAT, labelme, and colors of one's own; roboflow, label_studio: those tools.
assignment: which image goes into which split; writing: the folder, whole or not at all.
"""
