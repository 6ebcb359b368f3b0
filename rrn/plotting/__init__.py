"""What notebooks of several stages draw. No torch.

style: how a method, a score and a class look, saving, legends; paper.mplstyle is its style sheet.
pictures: images and label maps side by side.
figures: curves of a training, reliability, numbers by class.
qualitative: images on which methods differ.
"""
