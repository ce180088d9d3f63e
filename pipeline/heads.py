"""Every kind of head. A new one is a class in any of these modules, or in one imported here."""

from pipeline import gradient, linear, neighbours
from pipeline.head import Head

__all__ = ["KINDS", "gradient", "linear", "neighbours"]

KINDS = Head.kinds
