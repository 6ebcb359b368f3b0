"""What a model says of whole images.

inference: how an image goes through a model: whole, padded, window by window; scales, mirrored.
region_tables: one look at whole images: what the networks say of each, and of each region.
metrics: confusion matrix and mIoU, one matrix for a data set.
overlay: labels drawn over an image, for `rrn.predict`.
"""
