"""The one kind of error that effbook raises on purpose: a cause, and what to do about it."""


class EffbookError(Exception):
    """A request that cannot be met, told in one sentence with its remedy.

    The command line prints the sentence and exits with status 1; in a library call it is an ordinary exception.
    """

    def __init__(self, cause: str, remedy: str = "") -> None:
        self.cause = cause.rstrip(".")
        self.remedy = remedy.rstrip(".")
        super().__init__(f"{self.cause}; {self.remedy}." if self.remedy else f"{self.cause}.")
