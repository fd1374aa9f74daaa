"""What the page's words mean, for readers who meet them here first."""

from __future__ import annotations

GLOSSARY = {
    "Vector (embedding)": (
        "The list of numbers that a model makes of a text. Texts that mean similar things get "
        "vectors that point in similar directions."
    ),
    "File type (quantization)": (
        "How the model's weights are stored. F32 keeps 32 bits of each weight, F16 and BF16 keep "
        "16, Q8_0 about 8, Q4_0 and Q4_K_M between 4 and 5. Fewer bits make a smaller file and "
        "change the vectors a little."
    ),
    "Tensor": (
        "A table of weights in the file. A file type's name says how most of the large ones are "
        "stored; others, such as biases, may stay more exact."
    ),
    "Reference": "The type with the most exact weights here. The other types are compared with it.",
    "Memory": (
        "How much the program's resident memory grew from before the model was loaded until "
        "after the texts were embedded."
    ),
    "Token": (
        "A word or a piece of a word: what a model reads. Long texts have more tokens, and take "
        "longer."
    ),
    "Texts a second": (
        "How many texts were embedded each second when many were given at once: the median of "
        "several rounds. The types took turns, so that a busy moment of the machine hits all alike."
    ),
    "p50, p95, p99": (
        "Of 100 single texts, one after another, 50, 95 or 99 took no longer than this. p50 is "
        "the median."
    ),
    "Cosine": (
        "How alike two vectors' directions are: 1 if they are the same, 0 if they have nothing "
        "in common. Here: a text's vector of one type against that of the reference type."
    ),
    "Neighbour overlap": (
        "For each text the ten most similar of the other texts are found, with the reference's "
        "vectors and with this type's. The overlap is the share that is in both lists: how much "
        "of a search result stays."
    ),
    "Spearman": (
        "You gave pairs of texts with scores. This says how well the order of the pairs by "
        "cosine agrees with the order by your scores: 1 is the same order, 0 no relation."
    ),
    "nDCG@10": (
        "You gave queries and which texts answer them. This says how near the top of the first "
        "ten results those texts are: 1 is as good as possible, 0 is none among the ten."
    ),
    "Pareto front": (
        "The types that no other beats: whoever is faster is less exact, and whoever is more "
        "exact is slower. Any other type is a choice one need not make, but for its size."
    ),
    "Good enough": (
        "Within the tolerance of this comparison, which whoever ran it could choose: see "
        "“Where this was measured”."
    ),
}
