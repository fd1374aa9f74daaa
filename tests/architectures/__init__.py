"""Models of a few hundred kilobytes, one for each architecture, with references made elsewhere.

`TINY_MODELS` is what ``tests/integration/test_architectures.py`` runs. The references come from
``tests/data/make_architecture_references.py``.
"""

from tests.architectures import (
    bert,
    gemma_embedding,
    jina_bert_v2,
    modern_bert,
    nomic_bert,
    qwen3,
    t5_encoder,
    xlm_roberta,
)
from tests.architectures.common import TinyModel

_MODULES = (
    bert,
    nomic_bert,
    jina_bert_v2,
    modern_bert,
    xlm_roberta,
    qwen3,
    gemma_embedding,
    t5_encoder,
)

TINY_MODELS: tuple[TinyModel, ...] = tuple(model for module in _MODULES for model in module.MODELS)

WRONG_MODELS: dict[str, TinyModel] = {
    f"{module.MODELS[0].name}: {what}": model
    for module in _MODULES
    for what, model in module.WRONG.items()
}
"""What the comparison has to notice: each differs from its reference in the one thing named."""
