"""What ``python -m caption_utils`` can do: a file for each command, with its options and what it runs."""

__all__: list[str] = []
