"""What `rrn.train`, the loop, stands on.

learner: one step: gradients pass by pass, precision, updates that a bad loss cannot reach.
launch: the same loop in several processes, by torchrun, which ends all of them when one fails.
diagnosis: mIoU and the reliability of pseudo-labels, every few steps.
tensorboard: curves, and pictures of pseudo-labels, for the program of that name.
trial: can the networks of these settings be built, and do they take their images? On the meta device.
"""
