"""Scores of generated text and of classifiers."""

from effbook.evaluate import text, vision

__all__ = ["text", "vision"]
