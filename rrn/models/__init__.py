"""Networks: two segmenters, and the discriminators that judge regions of their pseudo-labels.

segmenter: labels pixels; any encoder of segmentation_models_pytorch or timm. pair: two of them, side by side.
discriminator: judges a class map region by region. relations: the same by what is said of a region and its neighbors.
step: what one step knows. pseudo_label_scores: by what regions of pseudo-labels are filtered, and how rho rates them.
regions: pixels and cells <-> regions, the best regions of a batch.
functional: small functions of tensors and numbers.
modes: teaching, evaluating, frozen, recomputing; the statistics of batch norm.
pretrained: weights of an encoder, by timm, torchvision or a file.
device: what `device:` in params.yaml is to torch.
folding: batch norm folded into the convolutions of copies that follow the weights.
"""
