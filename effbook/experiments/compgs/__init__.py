"""CompGS's experiments: importing this package registers its recipes and their profiles."""

from effbook.experiments.compgs import storage

__all__ = ["storage"]
