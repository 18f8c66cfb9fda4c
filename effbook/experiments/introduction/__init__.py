"""Chapter 1: importing this package registers its recipe."""

from effbook.experiments.introduction import growth

__all__ = ["growth"]
