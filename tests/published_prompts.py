"""What the authors of the catalogue's models publish as prompts, written down once more.

A lost space or colon costs accuracy and breaks nothing else, so each prompt is here a second time,
taken from its publication and not from the catalogue. The publication is the model card, at the
address of the row; `checked` names what else has the same text, by version or commit.
``tests/data/check_published_prompts.py`` repeats the comparison with the wheels among those.
"""

from dataclasses import dataclass

MTEB = "mteb 2.26.24, models/model_implementations/"
E5 = f"{MTEB}e5_models.py; github.com/microsoft/unilm@0822e37d e5/mteb_beir_eval.py, by the authors"
BGE = f"{MTEB}bge_models.py; FlagEmbedding 1.4.2, METADATA, by the authors"
NOMIC = f"{MTEB}nomic_models.py; github.com/nomic-ai/contrastors@1771db57 eval_mteb.py"
MXBAI = f"{MTEB}mixedbread_ai_models.py"
ARCTIC = "github.com/Snowflake-Labs/arctic-embed@3c9d754a src/mteb_retrieval.py, by the authors"
QWEN = (
    f"{MTEB}qwen3_models.py and FlagEmbedding 1.4.2, model_mapping.py, for all but the task; "
    "langchain-qwen3 0.1.2, embeddings.py, and the README of github.com/QwenLM/Qwen3-Embedding "
    "for the whole"
)
GEMMA = (
    "fastembed 0.9.1, builtin_sentence_embedding.py; "
    "github.com/huggingface/transformers@0d7e95d9 convert_gemma3_weights.py, by the authors"
)
GEMMA_TASKS = (
    "github.com/huggingface/transformers@0d7e95d9 convert_gemma3_weights.py, by the authors"
)

PASSAGES = "Represent this sentence for searching relevant passages: "
WEB_SEARCH = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
)


@dataclass(frozen=True, slots=True)
class Published:
    """The prompts of one model for searching.

    Attributes:
        repository: Of the model card.
        query: Before what is searched for.
        document: Before what is searched in.
        checked: What has the same prompts beside the card; None if nothing within reach has.
        unchecked: Why nothing has, or what remains.
    """

    repository: str
    query: str
    document: str
    checked: str | None
    unchecked: str = ""

    @property
    def source(self) -> str:
        """Address of the card."""
        return f"https://huggingface.co/{self.repository}"


PUBLISHED = {
    "e5-small-v2": Published("intfloat/e5-small-v2", "query: ", "passage: ", E5),
    "e5-base-v2": Published("intfloat/e5-base-v2", "query: ", "passage: ", E5),
    "e5-large-v2": Published("intfloat/e5-large-v2", "query: ", "passage: ", E5),
    "multilingual-e5-small": Published(
        "intfloat/multilingual-e5-small", "query: ", "passage: ", E5
    ),
    "multilingual-e5-base": Published("intfloat/multilingual-e5-base", "query: ", "passage: ", E5),
    "multilingual-e5-large": Published(
        "intfloat/multilingual-e5-large", "query: ", "passage: ", E5
    ),
    "bge-small-en-v1.5": Published("BAAI/bge-small-en-v1.5", PASSAGES, "", BGE),
    "bge-base-en-v1.5": Published("BAAI/bge-base-en-v1.5", PASSAGES, "", BGE),
    "bge-large-en-v1.5": Published("BAAI/bge-large-en-v1.5", PASSAGES, "", BGE),
    "bge-m3": Published("BAAI/bge-m3", "", "", BGE),
    "nomic-embed-text-v1.5": Published(
        "nomic-ai/nomic-embed-text-v1.5", "search_query: ", "search_document: ", NOMIC
    ),
    "mxbai-embed-large-v1": Published("mixedbread-ai/mxbai-embed-large-v1", PASSAGES, "", MXBAI),
    "snowflake-arctic-embed-s": Published(
        "Snowflake/snowflake-arctic-embed-s", PASSAGES, "", ARCTIC
    ),
    "snowflake-arctic-embed-m": Published(
        "Snowflake/snowflake-arctic-embed-m", PASSAGES, "", ARCTIC
    ),
    "snowflake-arctic-embed-l": Published(
        "Snowflake/snowflake-arctic-embed-l", PASSAGES, "", ARCTIC
    ),
    "qwen3-embedding-0.6b": Published("Qwen/Qwen3-Embedding-0.6B", WEB_SEARCH, "", QWEN),
    "qwen3-embedding-4b": Published("Qwen/Qwen3-Embedding-4B", WEB_SEARCH, "", QWEN),
    "qwen3-embedding-8b": Published("Qwen/Qwen3-Embedding-8B", WEB_SEARCH, "", QWEN),
    "embeddinggemma-300m": Published(
        "google/embeddinggemma-300m", "task: search result | query: ", "title: none | text: ", GEMMA
    ),
}
"""By the catalogue's name: every model with prompts, and bge-m3, whose family has them."""


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt for another task than searching."""

    prompt: str
    checked: str | None
    unchecked: str = ""


CARD_ALONE = (
    "in the table of the card and in no other publication of this model; "
    f"{MTEB}google_embeddinggemma.py has the words for EmbeddingGemma 2"
)

TASKS = {
    "nomic-embed-text-v1.5": {
        "clustering": Task("clustering: ", NOMIC),
        "classification": Task("classification: ", NOMIC),
    },
    "embeddinggemma-300m": {
        "question_answering": Task("task: question answering | query: ", None, CARD_ALONE),
        "fact_checking": Task("task: fact checking | query: ", None, CARD_ALONE),
        "code_retrieval": Task("task: code retrieval | query: ", GEMMA_TASKS),
        "classification": Task("task: classification | query: ", GEMMA_TASKS),
        "clustering": Task("task: clustering | query: ", GEMMA_TASKS),
        "similarity": Task("task: sentence similarity | query: ", GEMMA_TASKS),
        "summarization": Task("task: summarization | query: ", GEMMA_TASKS),
    },
}
"""By the catalogue's names of the model and of the prompt."""

NONE_PUBLISHED = {
    "minilm",
    "minilm-l12",
    "bert-base-uncased",
    "gte-small",
    "gte-base",
    "gte-large",
    "jina-embeddings-v2-base-en",
    "jina-embeddings-v2-base-code",
    "bge-reranker-v2-m3",
    "ms-marco-tinybert-l2-v2",
    "ms-marco-minilm-l6-v2",
    "ms-marco-minilm-l12-v2",
    "qwen3-reranker-0.6b",
}
"""Models of the catalogue whose cards name no prompt, of families that have none."""
