"""What is fast but not plain: the same numbers as ``model``, sooner. ``training`` alone chooses it."""

__all__: list[str] = []
