"""What was chosen for a model, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Choice:
    """Settings of one model, as in `ModelConfig`, and of tokenization.

    Attributes:
        n_threads: CPU threads of one forward pass.
        n_contexts: Forward passes that run at the same time.
        max_batch_tokens: Tokens in one micro-batch.
        max_batch_requests: Texts in one micro-batch.
        n_jobs: Threads that tokenize; None leaves it open.
        rationale: Why, in sentences.
    """

    n_threads: int
    n_contexts: int
    max_batch_tokens: int = 256
    max_batch_requests: int = 64
    n_jobs: int | None = None
    rationale: tuple[str, ...] = ()

    def __str__(self) -> str:
        contexts = "1 context" if self.n_contexts == 1 else f"{self.n_contexts} contexts"
        threads = "1 thread" if self.n_threads == 1 else f"{self.n_threads} threads"
        return f"{contexts} of {threads}, micro-batches of up to {self.max_batch_tokens} tokens"
