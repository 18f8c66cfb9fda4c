"""The door: every command is a few lines that call below."""

from effbook.cli.app import app, main

__all__ = ["app", "main"]
