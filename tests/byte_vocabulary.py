"""A vocabulary in tiktoken's form that needs no download."""

import tiktoken


def byte_vocabulary():
    """Return an encoding by the name of OpenAI's whose tokens are single bytes, and "the"."""
    ranks = {bytes([value]): value for value in range(256)} | {b"th": 257, b"the": 258}
    return tiktoken.Encoding(
        "cl100k_base", pat_str=r"\w+|\W+", mergeable_ranks=ranks, special_tokens={"<|end|>": 400}
    )
