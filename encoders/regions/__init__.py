"""The family `regions`: pictures as lists of region features, texts as lists of word features, two towers and a dot
product. Opened by `encoders.load_encoder("hrem:CHECKPOINT")`; importing this package imports no torch.
"""
