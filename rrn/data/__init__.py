"""Images and labels: what training and evaluation read.

formats: the kinds of data sets; image_set: a data set of any kind, as all others see it.
file_formats: formats by their first bytes; decoding: files to arrays, and what is wrong with one.
id_lists: the ids of a list; splits: who is labeled (split.json).
images: images of a split by place in a list; cache: decoded pixels in one file that all processes map.
transforms: crops, flips, CutMix boxes; batches: `Batch`, whole images; palette: colors of classes.
prefetch: the processes that prepare batches, their errors told as one's own.
"""
