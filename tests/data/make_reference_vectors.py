"""Compute the reference vectors the tests compare with; needs sentence-transformers and torch.

    python tests/data/make_reference_vectors.py FOLDER

FOLDER is all-MiniLM-L6-v2 as published (the pinned model.safetensors and its tokenizer files).
Writes minilm_reference.npz beside this script: float32 (n, 384) vectors, and the token ids laid
end to end with their offsets. Made with sentence-transformers 5.7.0, torch 2.13.0, float32 on CPU,
max_seq_length 512.
"""

import sys
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.reference_texts import reference_texts

if __name__ == "__main__":
    model = SentenceTransformer(sys.argv[1], device="cpu")
    model.max_seq_length = 512
    texts = reference_texts()
    vectors = np.asarray(model.encode(texts, batch_size=1), dtype=np.float32)
    ids = [
        np.asarray(row, np.int32) for row in model.tokenizer(texts, truncation=True)["input_ids"]
    ]
    target = Path(__file__).with_name("minilm_reference.npz")
    np.savez_compressed(
        target,
        vectors=vectors,
        input_ids=np.concatenate(ids),
        offsets=np.cumsum([0, *map(len, ids)], dtype=np.int32),
    )
    print(f"{len(texts)} texts of {min(map(len, ids))} to {max(map(len, ids))} tokens -> {target}")
