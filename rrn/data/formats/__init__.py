"""Kinds of data sets: where files lie, which ids a split has, what the values of labels mean.

base: what a kind has to say; a new kind is one module here and one word in `image_set`.
folder: one's own images, with class_list, which reads classes.txt.
class_choice: some of the classes of any kind, or several as one.
voc: PASCAL VOC 2012, with the labels of SBD.
cityscapes: Cityscapes, 34 ids of which 19 are classes.
camvid: CamVid in the layout of the SegNet tutorial.
"""
