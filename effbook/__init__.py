"""The reproducible companion to "Efficiency in Computer Vision: From Compute and Memory to Robustness"."""

__version__ = "0.1.0"
