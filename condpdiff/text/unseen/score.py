"""Scores LoRAs of many text tasks at once, and what needs no LoRA at all: a cosine, and a classifier."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from condpdiff.common.hardware import device
from condpdiff.text.families.losses import Classifier

BATCH = 16
"""Rows of each member in one pass."""


class Judge:
    """The rows of M members, as many of each: [M, V]."""

    def __init__(self, classifier: Classifier, rows: Sequence[pd.DataFrame]) -> None:
        self.classifier = classifier
        self.hidden = classifier.hidden([text for each in rows for text in each["text"]])
        self.labels = np.stack([each["label"] for each in rows])  # [M, V]
        lengths = self.hidden.mask.sum(1).view(self.labels.shape)
        # Of each member the shortest rows first: a batch then has rows of one length.
        self.order = lengths.argsort(dim=1)
        self.first = torch.arange(len(rows), device=device())[:, None] * self.labels.shape[1]

    @torch.no_grad()
    def predict(self, theta: Tensor) -> np.ndarray:
        """Each member's rows under its own LoRA of theta [M, K] -> classes [M, V]."""
        found = np.empty(self.labels.shape)
        theta = theta.to(device())
        for part in self.order.split(BATCH, dim=1):  # [M, BATCH]
            logits = self.classifier(theta, self.hidden[(self.first + part).flatten()])
            np.put_along_axis(found, part.cpu().numpy(), logits.argmax(1).view(part.shape).cpu().numpy(), axis=1)
        return found

    def __call__(self, theta: Tensor) -> np.ndarray:
        """Accuracy in percent [M]."""
        return accuracy(self.predict(theta), self.labels)


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Percent of each member's rows [M, V] -> [M]."""
    return 100 * (predictions == labels).mean(1)


def cosines(texts: Tensor, told: Tensor) -> np.ndarray:
    """Embeddings of rows [M, V, d] and of what tells of each member [M, d] -> cosines [M, V]."""
    return torch.cosine_similarity(texts, told[:, None], dim=2).cpu().numpy()


def best_threshold(values: np.ndarray, labels: np.ndarray) -> float:
    """The threshold between two values above which most rows are yes, of all rows together."""
    order = np.argsort(values, axis=None)
    value, label = values.ravel()[order], labels.ravel()[order]
    # Right with a threshold behind the first i rows: the no among them, and the yes of the rest.
    right = np.concatenate([[label.sum()], label.sum() + np.cumsum(1 - 2 * label)])
    i = int(right.argmax())
    edges = np.concatenate([value[:1] - 1, (value[1:] + value[:-1]) / 2, value[-1:] + 1])
    return float(edges[i])


def classifier_accuracy(train: Tensor, labels: np.ndarray, rows: Tensor, true: np.ndarray) -> np.ndarray:
    """Logistic regression of each member on embeddings [M, n, d] with labels [M, n], scored on [M, V, d] -> [M]."""
    from sklearn.linear_model import LogisticRegression

    found = [
        LogisticRegression(max_iter=1000).fit(x.numpy(), y).predict(new.numpy())
        for x, y, new in zip(train, labels, rows, strict=True)
    ]
    return accuracy(np.stack(found), true)
