"""The baselines without attention: fully connected and convolutional classifiers (Tables 1 and 2; ledger I)."""

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
