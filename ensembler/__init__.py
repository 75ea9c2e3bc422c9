"""Ensembles and model comparison for image classification: a verdict you can trust."""

__version__ = "0.1.0"
