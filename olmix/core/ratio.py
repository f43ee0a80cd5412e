"""The ratio estimator: how much y a population of pairs (x, y) holds, from its x and a sample of the pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Ratio:
    """A sample of pairs of whole numbers as running sums: its size, and the sums of x, y and their products."""

    n: int = 0
    x: int = 0
    y: int = 0
    xx: int = 0
    xy: int = 0
    yy: int = 0

    def add(self, x: int, y: int) -> None:
        """Take one more pair into the sample."""
        self.n += 1
        self.x += x
        self.y += y
        self.xx += x * x
        self.xy += x * y
        self.yy += y * y

    def total(self, x: int) -> int:
        """The estimate, X R with R = sum y / sum x, for a population that holds X = `x`."""
        return round(x * self.y / self.x)

    def error(self, x: int, population: int) -> int | None:
        """The standard error of `total` for a population of N = `population` pairs; None from fewer than two pairs.

        X se(R), se(R) = sqrt((1 - n/N) sum (y_i - R x_i)^2 / (n (n - 1))) / mean(x): Cochran, Sampling Techniques
        (1977), chapter 6.
        """
        if self.n < 2:
            return None
        # Over x^2 in whole numbers: a difference of sums this large would be lost to rounding.
        residuals = (self.yy * self.x**2 - 2 * self.xy * self.x * self.y + self.xx * self.y**2) / self.x**2
        deviation = math.sqrt((1 - self.n / population) * residuals / (self.n * (self.n - 1)))
        return round(x * deviation * self.n / self.x)
