"""Every network of the course, written as a list of layers made from one ConvBlock.

Comments give the shape behind each layer: channels x height x width, and the receptive field (rf) in pixels.
"""

from torch import nn


class ConvBlock(nn.Sequential):
    """A convolution without bias, then batch norm, ReLU and dropout.

    Maps (N, in_channels, H, W) to (N, out_channels, H', W') with H' = H + 2 * padding - kernel_size + 1.
    `norm` and `activation` switch those two layers off; `dropout` is the probability of a zeroed element, 0 for none.
    Batch norm (Ioffe & Szegedy 2015): y = gamma * (x - mean) / sqrt(var + eps) + beta, mean and var per channel.
    """

    def __init__(self, in_channels, out_channels, kernel_size=3, padding=0, norm=True, activation=True, dropout=0.0):
        layers = [nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False)]
        if norm:
            layers.append(nn.BatchNorm2d(out_channels))
        if activation:
            layers.append(nn.ReLU(inplace=True))
        if dropout:
            layers.append(nn.Dropout(dropout))
        super().__init__(*layers)


def under_10k(dropout=0.0):
    """The network of s06: (N, 1, 28, 28) images to (N, 10) logits, 9,404 parameters."""
    return nn.Sequential(
        ConvBlock(1, 4, dropout=dropout),  # 4 x 26 x 26, rf 3
        ConvBlock(4, 8, dropout=dropout),  # 8 x 24 x 24, rf 5
        ConvBlock(8, 12, dropout=dropout),  # 12 x 22 x 22, rf 7
        ConvBlock(12, 16, dropout=dropout),  # 16 x 20 x 20, rf 9
        nn.MaxPool2d(2),  # 16 x 10 x 10, rf 10
        ConvBlock(16, 12, kernel_size=1),  # 12 x 10 x 10: 1x1 convolutions mix channels and save parameters
        ConvBlock(12, 8, kernel_size=1),  # 8 x 10 x 10
        ConvBlock(8, 12, dropout=dropout),  # 12 x 8 x 8, rf 14
        ConvBlock(12, 16, dropout=dropout),  # 16 x 6 x 6, rf 18
        ConvBlock(16, 20),  # 20 x 4 x 4, rf 22
        ConvBlock(20, 16, kernel_size=1),  # 16 x 4 x 4
        nn.AvgPool2d(4),  # 16 x 1 x 1, rf 28: the whole image
        ConvBlock(16, 10, kernel_size=1, norm=False, activation=False),  # 10 x 1 x 1: one score a class
        nn.Flatten(),  # 10
    )


def under_20k(dropout=0.0):
    """The network of s07: (N, 1, 28, 28) images to (N, 10) logits, 19,088 parameters."""
    return nn.Sequential(
        ConvBlock(1, 16, padding=1, dropout=dropout),  # 16 x 28 x 28, rf 3
        ConvBlock(16, 24, padding=1, dropout=dropout),  # 24 x 28 x 28, rf 5
        nn.MaxPool2d(2),  # 24 x 14 x 14, rf 6
        ConvBlock(24, 16, kernel_size=1, dropout=dropout),  # 16 x 14 x 14
        ConvBlock(16, 24, padding=1, dropout=dropout),  # 24 x 14 x 14, rf 10
        ConvBlock(24, 32, padding=1, dropout=dropout),  # 32 x 14 x 14, rf 14
        nn.MaxPool2d(2),  # 32 x 7 x 7, rf 16
        ConvBlock(32, 24, kernel_size=1, dropout=dropout),  # 24 x 7 x 7
        ConvBlock(24, 12),  # 12 x 5 x 5, rf 24
        ConvBlock(12, 10, norm=False, activation=False),  # 10 x 3 x 3, rf 32
        nn.AvgPool2d(3),  # 10 x 1 x 1, rf 40
        nn.Flatten(),  # 10
    )
