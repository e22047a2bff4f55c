"""The one exception meant for the person at the keyboard."""


class InputError(ValueError):
    """Something handed in cannot be used. The message is one line: the file or setting at fault, and the remedy."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))

    def _render_traceback_(self) -> list[str]:
        """What notebooks and the page show: the message alone."""
        return [f"{type(self).__name__}: {self}"]
