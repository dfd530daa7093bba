"""Simsa: an inference gateway that turns claims about candidate language models into evidence."""

__version__ = "0.1.0"
