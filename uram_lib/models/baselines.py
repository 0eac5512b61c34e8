"""The baselines without attention: fully connected and convolutional classifiers (Tables 1 and 2; ledger I)."""

import torch
from torch import Tensor, nn


class FullyConnected(nn.Module):
    """Two hidden layers of 256 ReLU units on the flattened image."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int):
        super().__init__()
        channels, height, width = image_shape
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * height * width, 256),
            nn.ReLU(),
            nn.Linear(256, 256),
            nn.ReLU(),
            nn.Linear(256, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W) in [0, 1]. Returns class logits (B, K)."""
        return self.layers(images)


class TwoLayerCNN(nn.Module):
    """Two 5x5 convolutions (32, 64 filters), each with ReLU and 2x2 max pooling, then FC 256 (ledger I)."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int):
        super().__init__()
        channels, height, width = image_shape
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * (height // 4) * (width // 4), 256),
            nn.ReLU(),
            nn.Linear(256, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W) in [0, 1]. Returns class logits (B, K)."""
        return self.layers(images)


class FiveLayerCNN(nn.Module):
    """Five 3x3 convolutions (32, 64, 64, 128, 128 filters) with ReLU, 2x2 max pooling after the first four, then
    FC 256 (ledger I)."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int):
        super().__init__()
        channels, height, width = image_shape
        layers, filters = [], (32, 64, 64, 128, 128)
        for i, (before, after) in enumerate(zip((channels, *filters), filters, strict=False)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()] + [nn.MaxPool2d(2)] * (i < 4)
        self.layers = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(filters[-1] * (height // 16) * (width // 16), 256),
            nn.ReLU(),
            nn.Linear(256, classes),
        ).to(memory_format=torch.channels_last)  # which the activations take over: faster

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W) in [0, 1], H and W at least 16. Returns class logits (B, K)."""
        return self.layers(images)
