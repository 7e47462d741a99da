"""LoRAs for tasks that were never trained on: what a generator is held against, in every domain.

All of it is made from what the generator had too: the soups of the tasks that were trained on, and the conditions.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

NEIGHBOURS, TEMPERATURE = 4, 0.1  # of the softmax over cosine similarities: a task nearer by 0.1 weighs e times as much
PENALTIES = np.logspace(-3, 3, 13)  # of the regressions, from which leaving out one task at a time chooses


class Rivals:
    """Every rule that needs no generator, fitted to the tasks that a generator was trained on.

    mean_soup       the mean of all soups, whatever the condition
    nearest         the soup of the task of the most similar condition (cosine)
    softmax_nearest NEIGHBOURS soups, weighted by the softmax of their similarity
    ridge           linear regression from condition to soup; its penalty by leaving tasks out
    kernel_ridge    the same with a Gaussian kernel, whose width is the median distance
    ridge_gaussian  ridge, and a draw of its residuals on the tasks left out
    """

    def __init__(self, soups: Tensor, y: Tensor) -> None:
        """Args: soups: [Q, K], mean of each task's checkpoints; y: [Q, d_cond], mean of each one's conditions."""
        from sklearn.kernel_ridge import KernelRidge
        from sklearn.linear_model import RidgeCV
        from sklearn.model_selection import GridSearchCV, LeaveOneOut

        self.soups, self.mean, self.centre = soups, soups.mean(0), y.mean(0)
        self.known = known = y - self.centre
        # A regression on Q soups gives combinations of them: work in their span.
        left, lengths, self.axes = torch.linalg.svd(soups - self.mean, full_matrices=False)
        targets, x = (left * lengths).numpy(), known.numpy()
        self.ridge = RidgeCV(PENALTIES * float(known.square().sum(1).mean())).fit(x, targets)
        width = float(torch.pdist(known).median())
        grid = {"alpha": PENALTIES, "gamma": [1 / (s * width) ** 2 for s in (0.5, 1, 2)]}
        search = GridSearchCV(KernelRidge(kernel="rbf"), grid, scoring="neg_mean_squared_error", cv=LeaveOneOut())
        self.kernel = search.fit(x, targets)
        self.off = torch.from_numpy(targets - _left_out(x, targets, float(self.ridge.alpha_))).float()  # [Q, n]

    def __call__(self, y: Tensor, seed: int) -> dict[str, Tensor]:
        """LoRAs [S, K] of each rule for the conditions y [S, d_cond]; the seed is of what is drawn."""
        asked, off = y - self.centre, self.off
        near = cosine_similarity(asked[:, None], self.known[None], dim=2)  # [S, Q]
        weights, of = near.topk(min(NEIGHBOURS, len(self.known)), dim=1)
        weights = torch.softmax(weights / TEMPERATURE, dim=1)
        draws = torch.randn(len(y), len(off), generator=torch.Generator().manual_seed(seed)) / len(off) ** 0.5
        predicted = torch.from_numpy(self.ridge.predict(asked.numpy())).float()

        def theta(coordinates: Tensor) -> Tensor:
            return self.mean + coordinates.float() @ self.axes

        return {
            "mean_soup": self.mean.expand(len(y), -1),
            "nearest": self.soups[near.argmax(1)],
            "softmax_nearest": (weights[..., None] * self.soups[of]).sum(1),
            "ridge": theta(predicted),
            "kernel_ridge": theta(torch.from_numpy(self.kernel.predict(asked.numpy()))),
            "ridge_gaussian": theta(predicted + draws @ off),
        }


def _left_out(x: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    """What ridge regression predicts of each task without it [Q, n], in closed form."""
    gram = x @ x.T
    hat = np.linalg.solve(gram + penalty * np.eye(len(x)), gram).T + 1 / len(x)  # the mean is fitted too
    return (hat @ targets - np.diag(hat)[:, None] * targets) / (1 - np.diag(hat))[:, None]
