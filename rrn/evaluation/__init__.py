"""What a model says of whole images.

inference: how an image goes through a model: whole, padded, window by window; scales, mirrored.
scores: the scores of regions, a function each.
region_tables: what the networks say of whole images, pixel by pixel and region by region.
metrics: confusion matrix and mIoU, one matrix for a data set.
bootstrap: mIoU of test images that are drawn again.
"""
