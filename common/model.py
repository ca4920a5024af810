"""Every network of the course, written as a list of layers made from one ConvBlock.

Comments give the shape behind each layer: channels x height x width, and the receptive field (rf) in pixels.
"""

import torch
import torch.nn.functional as F
from torch import nn


class ConvBlock(nn.Sequential):
    """A convolution, then batch norm, ReLU and dropout.

    Maps (N, in_channels, H, W) to (N, out_channels, H', W') with H' = (H + 2 * padding - kernel_size) // stride + 1.
    `norm` and `activation` switch those two layers off; `dropout` is the probability of a zeroed element, 0 for none;
    `bias` is only of use where no batch norm follows, which has its own.
    Batch norm (Ioffe & Szegedy 2015): y = gamma * (x - mean) / sqrt(var + eps) + beta, mean and var per channel.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size=3,
        padding=0,
        stride=1,
        norm=True,
        activation=True,
        dropout=0.0,
        bias=False,
    ):
        layers = [nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias)]
        if norm:
            layers.append(nn.BatchNorm2d(out_channels))
        if activation:
            layers.append(nn.ReLU(inplace=True))
        if dropout:
            layers.append(nn.Dropout(dropout))
        super().__init__(*layers)


class ResidualBlock(nn.Module):
    """Two convolutions that learn what to add to their input (He et al. 2016): y = ReLU(path(x) + shortcut(x)).

    Maps (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride), odd sizes rounded up. The shortcut hands x
    on as it is; where the shape changes, a 1x1 convolution and batch norm bring x into the new one.
    """

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.path = nn.Sequential(
            ConvBlock(in_channels, out_channels, padding=1, stride=stride),
            ConvBlock(out_channels, out_channels, padding=1, activation=False),
        )
        self.shortcut = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = ConvBlock(in_channels, out_channels, kernel_size=1, stride=stride, activation=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.path(x) + self.shortcut(x))


class DigitSum(nn.Module):
    """The network of s02: images (N, 1, 28, 28) and digits (N, 1) to (N, 10 + sums).

    The first ten outputs are the scores of the label. Behind them stand the scores of the 19 possible sums, or with
    `sums=1` the sum itself, for regression. 57,429 parameters; without the hidden layer behind the concatenation
    46,549.
    """

    def __init__(self, sums=19, hidden=True):
        super().__init__()
        self.image_path = nn.Sequential(
            ConvBlock(1, 8),  # 8 x 26 x 26, rf 3
            ConvBlock(8, 16),  # 16 x 24 x 24, rf 5
            nn.MaxPool2d(2),  # 16 x 12 x 12, rf 6
            ConvBlock(16, 16),  # 16 x 10 x 10, rf 10
            ConvBlock(16, 16),  # 16 x 8 x 8, rf 14
            nn.MaxPool2d(2),  # 16 x 4 x 4, rf 16
            nn.Flatten(),  # 256
            nn.Linear(256, 128),  # 128
            nn.ReLU(inplace=True),
        )
        self.digit_path = nn.Sequential(nn.Linear(1, 128), nn.ReLU(inplace=True))  # 128
        self.hidden = nn.Sequential(nn.Linear(256, 64), nn.ReLU(inplace=True)) if hidden else nn.Identity()
        width = 64 if hidden else 256
        self.label = nn.Linear(width, 10)
        self.sum = nn.Linear(width, sums)

    def forward(self, images, digits):
        both = torch.cat([self.image_path(images), self.digit_path(digits)], dim=1)  # (N, 256)
        both = self.hidden(both)  # (N, 64)
        return torch.cat([self.label(both), self.sum(both)], dim=1)  # (N, 10 + sums)


def first_convnet(dropout=0.0):
    """The network of s03: (N, 1, 28, 28) images to (N, 10) logits, 27,834 parameters."""
    return nn.Sequential(
        ConvBlock(1, 16, padding=1, dropout=dropout),  # 16 x 28 x 28, rf 3
        ConvBlock(16, 16, padding=1, dropout=dropout),  # 16 x 28 x 28, rf 5
        nn.MaxPool2d(2),  # 16 x 14 x 14, rf 6
        ConvBlock(16, 24, padding=1, dropout=dropout),  # 24 x 14 x 14, rf 10
        ConvBlock(24, 24, padding=1, dropout=dropout),  # 24 x 14 x 14, rf 14
        nn.MaxPool2d(2),  # 24 x 7 x 7, rf 16
        ConvBlock(24, 32, dropout=dropout),  # 32 x 5 x 5, rf 24
        ConvBlock(32, 32, dropout=dropout),  # 32 x 3 x 3, rf 32
        nn.AvgPool2d(3),  # 32 x 1 x 1, rf 40
        nn.Flatten(),  # 32
        nn.Linear(32, 10),  # 10: one score a class
    )


def skeleton():
    """Step 1 of s04, convolutions and a fully connected head: (N, 1, 28, 28) to (N, 10) logits, 31,530 parameters."""
    return nn.Sequential(
        ConvBlock(1, 8, norm=False, bias=True),  # 8 x 26 x 26, rf 3
        ConvBlock(8, 16, norm=False, bias=True),  # 16 x 24 x 24, rf 5
        nn.MaxPool2d(2),  # 16 x 12 x 12, rf 6
        ConvBlock(16, 16, norm=False, bias=True),  # 16 x 10 x 10, rf 10
        ConvBlock(16, 16, norm=False, bias=True),  # 16 x 8 x 8, rf 14
        nn.MaxPool2d(2),  # 16 x 4 x 4, rf 16
        nn.Flatten(),  # 256
        nn.Linear(256, 96),  # 96: these 24,672 parameters see the whole image
        nn.ReLU(inplace=True),
        nn.Linear(96, 10),  # 10
    )


def batch_norm_and_dropout(dropout=0.05):
    """Step 2 of s04, the skeleton with batch norm and dropout: (N, 1, 28, 28) to (N, 10) logits, 31,682 parameters."""
    return nn.Sequential(
        ConvBlock(1, 8, dropout=dropout),  # 8 x 26 x 26, rf 3
        ConvBlock(8, 16, dropout=dropout),  # 16 x 24 x 24, rf 5
        nn.MaxPool2d(2),  # 16 x 12 x 12, rf 6
        ConvBlock(16, 16, dropout=dropout),  # 16 x 10 x 10, rf 10
        ConvBlock(16, 16, dropout=dropout),  # 16 x 8 x 8, rf 14
        nn.MaxPool2d(2),  # 16 x 4 x 4, rf 16
        nn.Flatten(),  # 256
        nn.Linear(256, 96, bias=False),  # 96
        nn.BatchNorm1d(96),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(96, 10),  # 10
    )


def global_average_pooling(dropout=0.05):
    """Step 3 of s04, no fully connected layer: (N, 1, 28, 28) images to (N, 10) logits, 9,998 parameters."""
    return nn.Sequential(
        ConvBlock(1, 10, dropout=dropout),  # 10 x 26 x 26, rf 3
        ConvBlock(10, 16, dropout=dropout),  # 16 x 24 x 24, rf 5
        nn.MaxPool2d(2),  # 16 x 12 x 12, rf 6
        ConvBlock(16, 16, dropout=dropout),  # 16 x 10 x 10, rf 10
        ConvBlock(16, 16, dropout=dropout),  # 16 x 8 x 8, rf 14
        ConvBlock(16, 24, dropout=dropout),  # 24 x 6 x 6, rf 18
        nn.AvgPool2d(6),  # 24 x 1 x 1, rf 28: the whole image
        ConvBlock(24, 10, kernel_size=1, norm=False, activation=False),  # 10 x 1 x 1: one score a class
        nn.Flatten(),  # 10
    )


def fully_connected_head(classes=3):
    """The network of s05: (N, 1, 28, 28) images to (N, classes) logits, 206,019 parameters for 3 classes."""
    return nn.Sequential(
        ConvBlock(1, 16, padding=1, norm=False, bias=True),  # 16 x 28 x 28, rf 3
        nn.MaxPool2d(2),  # 16 x 14 x 14, rf 4
        ConvBlock(16, 32, padding=1, norm=False, bias=True),  # 32 x 14 x 14, rf 8
        nn.MaxPool2d(2),  # 32 x 7 x 7, rf 10
        nn.Flatten(),  # 1568
        nn.Linear(1568, 128),  # 128
        nn.ReLU(inplace=True),
        nn.Linear(128, classes),  # one score a class
    )


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


def resnet18(width=64, classes=10, channels=3):
    """The network of s10, ResNet-18 (He et al. 2016) for small images: (N, channels, 32, 32) to (N, classes) logits.

    Its first layer keeps the size of the image, where that for large images would halve it twice. The comments are
    those of `width` 64, with 11,173,962 parameters for 10 classes; width 32 has 2,797,610 and width 16 has 701,466.
    """
    return nn.Sequential(
        ConvBlock(channels, width, padding=1),  # 64 x 32 x 32, rf 3
        ResidualBlock(width, width),  # 64 x 32 x 32, rf 7
        ResidualBlock(width, width),  # 64 x 32 x 32, rf 11
        ResidualBlock(width, 2 * width, stride=2),  # 128 x 16 x 16, rf 17
        ResidualBlock(2 * width, 2 * width),  # 128 x 16 x 16, rf 25
        ResidualBlock(2 * width, 4 * width, stride=2),  # 256 x 8 x 8, rf 37: wider than the image
        ResidualBlock(4 * width, 4 * width),  # 256 x 8 x 8, rf 53
        ResidualBlock(4 * width, 8 * width, stride=2),  # 512 x 4 x 4, rf 77
        ResidualBlock(8 * width, 8 * width),  # 512 x 4 x 4, rf 109
        nn.AdaptiveAvgPool2d(1),  # 512 x 1 x 1: the mean of each map
        nn.Flatten(),  # 512
        nn.Linear(8 * width, classes),  # one score a class
    )


class ConvPoolBlock(nn.Sequential):
    """A 3x3 convolution, max-pooling, batch norm and ReLU; pooling comes first, so the other two have a quarter to do.

    Maps (N, in_channels, H, W) to (N, out_channels, H' // 2, W' // 2) with H' = H + 2 * padding - 2.
    """

    def __init__(self, in_channels, out_channels, padding=0):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=padding, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


def under_a_minute():
    """The small network of s11: (N, 1, 28, 28) images to (N, 10) logits, 9,074 parameters."""
    return nn.Sequential(
        ConvPoolBlock(1, 8),  # 8 x 13 x 13, rf 4
        ConvBlock(8, 16, padding=1),  # 16 x 13 x 13, rf 8
        ConvBlock(16, 16),  # 16 x 11 x 11, rf 12
        ConvPoolBlock(16, 16),  # 16 x 4 x 4, rf 18
        ConvBlock(16, 20),  # 20 x 2 x 2, rf 26
        nn.AvgPool2d(2),  # 20 x 1 x 1, rf 30: the whole image
        nn.Flatten(),  # 20
        nn.Linear(20, 10),  # one score a class
    )


def under_an_hour(classes=10, channels=3):
    """The large network of s11, wide and not deep: (N, channels, 32, 32) images to (N, classes) logits.

    1,972,778 parameters for 10 classes and 3 channels; 288 of them are the first layer's.
    """
    return nn.Sequential(
        nn.Conv2d(channels, 8 * channels, kernel_size=2, bias=False),  # 24 x 31 x 31, rf 2
        nn.ReLU(inplace=True),
        ConvPoolBlock(8 * channels, 64, padding=1),  # 64 x 15 x 15, rf 5
        ConvBlock(64, 64, padding=1),  # 64 x 15 x 15, rf 9
        ConvPoolBlock(64, 256, padding=1),  # 256 x 7 x 7, rf 15
        ConvBlock(256, 256, padding=1),  # 256 x 7 x 7, rf 23
        ConvPoolBlock(256, 256, padding=1),  # 256 x 3 x 3, rf 35: the whole image
        ConvBlock(256, 256, padding=1),  # 256 x 3 x 3, rf 51
        nn.AdaptiveAvgPool2d(1),  # 256 x 1 x 1: the mean of each map
        nn.Flatten(),  # 256
        nn.Linear(256, classes),  # one score a class
    )


class Views(nn.Module):
    """A network that is trained as it is, and that answers with the mean of its scores for six views of an image.

    The views are the image as it is and shifted by one pixel towards two corners, each also mirrored. What comes in at
    a border is a mirror image of what lies beside it.
    """

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        if self.training:
            return self.network(x)
        padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
        height, width = x.shape[2:]
        shifted = [padded[:, :, top : top + height, top : top + width] for top in range(3)]
        views = [view for image in shifted for view in (image, image.flip(3))]
        return torch.stack([self.network(view) for view in views]).mean(dim=0)


def speedrun(variant):
    """The network of a record of s11, "minute" or "hour", or of the "ledger" of the hour."""
    return {"minute": under_a_minute, "hour": lambda: Views(under_an_hour()), "ledger": under_an_hour}[variant]()
