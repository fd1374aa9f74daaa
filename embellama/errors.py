"""Every exception that embellama raises on purpose.

::

    EmbellamaError
    ├── ConfigurationError              a setting, or settings that contradict each other
    ├── ModelError
    │   ├── ModelNotFoundError          no such file, catalogue name or loaded model
    │   ├── ModelLoadError              llama.cpp refused the file, or memory is short
    │   ├── GGUFFormatError             the bytes are not a sound GGUF
    │   ├── DownloadError               a hub or an index did not deliver
    │   └── ConversionError             weights that cannot become a GGUF
    ├── InvalidInputError (ValueError)
    │   ├── InvalidInputTypeError (TypeError)
    │   ├── EmptyInputError             nothing to embed in a text
    │   └── InputTooLongError           a text over the model's per-text limit
    ├── EmbeddingGenerationError
    │   ├── DecodeError                 llama.cpp returned a status other than 0
    │   └── ContextError                no context, or a context that is gone
    ├── BatchError                      some texts of a batch could not be embedded
    ├── OverloadedError                 no room now; the same call may succeed later
    ├── EmbeddingTimeoutError (TimeoutError)    not done within the call's timeout_s
    └── MissingDependencyError (ImportError)

`EmbellamaWarning` is the category of the warnings.

An error carries ``code`` (stable, for programs), ``retryable`` (whether the same call may succeed
later) and the typed fields named in its class; its message gives the observed value, the limit and
what mends it. Errors of other libraries are translated once, where they enter, with
``raise … from``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar


class EmbellamaError(Exception):
    """Base of every error raised by embellama."""

    code: ClassVar[str] = "error"
    retryable: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without calling ``__init__``, whose arguments are keyword-only below."""
        return _rebuild, (type(self), self.args, dict(self.__dict__))


def _rebuild(cls: type[EmbellamaError], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class EmbellamaWarning(UserWarning):
    """Something that works and is probably not what was meant."""


class ConfigurationError(EmbellamaError):
    """A setting is out of range, unknown, or contradicts another."""

    code = "configuration"


class ModelError(EmbellamaError):
    """Base of what can go wrong with a model as a whole."""

    code = "model"


class ModelNotFoundError(ModelError):
    """No model of this name is loaded, catalogued or on disk."""

    code = "model_not_found"


class ModelLoadError(ModelError):
    """llama.cpp could not load the file, or it does not fit into the memory allowed.

    Attributes:
        log_lines: The last lines llama.cpp wrote before it gave up; empty if it was never asked.
    """

    code = "model_load"

    def __init__(self, message: str, *, log_lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.log_lines = tuple(log_lines)


class GGUFFormatError(ModelError):
    """The bytes of a file are not those of a sound GGUF."""

    code = "gguf_format"


class DownloadError(ModelError):
    """A model could not be fetched, or what came is not what was asked for.

    Attributes:
        status: The HTTP status, where there was one.
    """

    code = "download"

    def __init__(self, message: str, *, status: int | None = None, retryable: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = retryable


class ConversionError(ModelError):
    """A folder of weights cannot be turned into a GGUF, or a GGUF not into another type."""

    code = "conversion"


class InvalidInputError(EmbellamaError, ValueError):
    """An argument of an embedding call cannot be used.

    Attributes:
        indices: Positions of the offending texts in the call; empty where it is not about texts.
    """

    code = "invalid_input"

    def __init__(self, message: str, *, indices: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.indices = tuple(indices)


class InvalidInputTypeError(InvalidInputError, TypeError):
    """An argument has the wrong type."""

    code = "invalid_input_type"


class EmptyInputError(InvalidInputError):
    """A text has no token of its own: it is empty, blank, or made of dropped characters."""

    code = "empty_input"


class InputTooLongError(InvalidInputError):
    """A text has more tokens than the model takes at once.

    Attributes:
        n_tokens: Token counts with special tokens, parallel to ``indices``.
        limit: The per-text limit in tokens, special tokens included.
    """

    code = "input_too_long"

    def __init__(
        self, message: str, *, indices: Sequence[int], n_tokens: Sequence[int], limit: int
    ) -> None:
        super().__init__(message, indices=indices)
        self.n_tokens = tuple(n_tokens)
        self.limit = limit


class EmbeddingGenerationError(EmbellamaError):
    """Inference failed although the input was sound.

    Attributes:
        model: The name of the model; None where it is not about one.
        indices: Positions of the texts in the call; empty where it is not about texts.
    """

    code = "embedding_generation"

    def __init__(
        self, message: str, *, model: str | None = None, indices: Sequence[int] = ()
    ) -> None:
        super().__init__(message)
        self.model = model
        self.indices = tuple(indices)


class DecodeError(EmbeddingGenerationError):
    """llama.cpp returned a status other than 0 for a micro-batch.

    Attributes:
        status: What ``llama_encode`` or ``llama_decode`` returned.
    """

    code = "decode"

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class ContextError(EmbeddingGenerationError):
    """A llama.cpp context could not be made, or is no longer there."""

    code = "context"


class BatchError(EmbellamaError):
    """Some texts of a batch could not be embedded.

    Attributes:
        failed_indices: Positions of the texts whose inference failed, ascending. The call returns
            no vectors of the others either.
    """

    code = "batch"

    def __init__(self, message: str, *, failed_indices: Sequence[int]) -> None:
        super().__init__(message)
        self.failed_indices = tuple(failed_indices)


class OverloadedError(EmbellamaError):
    """There is no room for the work now; the same call may succeed later."""

    code = "overloaded"
    retryable = True


class EmbeddingTimeoutError(EmbellamaError, TimeoutError):
    """A call was not done within the time it was given.

    Attributes:
        timeout_s: The time it was given, in seconds.
    """

    code = "timeout"
    retryable = True

    def __init__(self, message: str, *, timeout_s: float) -> None:
        super().__init__(message)
        self.timeout_s = timeout_s


class MissingDependencyError(EmbellamaError, ImportError):
    """An optional dependency is not installed.

    Attributes:
        extra: The extra that installs it: ``pip install "embellama[extra]"``.
    """

    code = "missing_dependency"

    def __init__(self, message: str, *, extra: str) -> None:
        super().__init__(message)
        self.extra = extra
