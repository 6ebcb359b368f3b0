"""The explorer: which pseudo-labels does a rule keep, and are they right? No torch.

analysis: evidence.zip and a choice in; what is kept, weights, tables out.
image_view: one image, drawn fast.
split_view: the curves of a whole split.
widget: the controls, where a person chooses.
"""
