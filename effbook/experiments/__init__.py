"""Recipes, profiles, records and their execution; one sub-package a system."""
