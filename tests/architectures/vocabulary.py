"""Small vocabularies of real words, in the forms that the tiny models need."""

from gguf import GGUFWriter, TokenType

_WORDS = (
    "a able about all and are as at be book books brown bru but by cafe can capital cat "
    "cities city creme day did do dog down ed en end er es evening ever every far for fox "
    "from had has have he her his house how i if in ing is it its jump know knows lazy lee "
    "less line lines ly man ment morning nai near ness new nobody not of on once one or out "
    "over queen quick rain read res sea see she ship ships so some space spaces spain tab "
    "that the their there they this time tion to train trains two ume un up ve was water we "
    "went were what when which who will with you your"
)
WORDS = _WORDS.split()

LETTERS = "abcdefghijklmnopqrstuvwxyz"
MARKS = "0123456789.,;:!?&'-()"
OTHER_LETTERS = "день東"

WORDPIECE_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def wordpiece_vocabulary() -> list[str]:
    """List an uncased BERT vocabulary as its vocab.txt would: words, letters, continuations.

    Some of its letters are of other scripts, and some of those are left out, so that there are
    unknown words.
    """
    starts = [*LETTERS, *MARKS, *OTHER_LETTERS, *WORDS]
    continued = [*LETTERS, *"0123456789", *OTHER_LETTERS, *WORDS]
    return list(
        dict.fromkeys([*WORDPIECE_SPECIAL, *starts, *(f"##{piece}" for piece in continued)])
    )


def add_wordpiece(writer: GGUFWriter, pre: str) -> None:
    """Write it in llama.cpp's form: a word's first piece is marked, continuations are not."""
    tokens, types = [], []
    for piece in wordpiece_vocabulary():
        special = piece in WORDPIECE_SPECIAL
        tokens.append(piece if special else piece.removeprefix("##"))
        if not special and not piece.startswith("##"):
            tokens[-1] = f"▁{piece}"
        types.append(TokenType.CONTROL if special else TokenType.NORMAL)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_bos_token_id(tokens.index("[CLS]"))
    writer.add_eos_token_id(tokens.index("[SEP]"))
    writer.add_unk_token_id(tokens.index("[UNK]"))
    writer.add_sep_token_id(tokens.index("[SEP]"))
    writer.add_pad_token_id(tokens.index("[PAD]"))
    writer.add_mask_token_id(tokens.index("[MASK]"))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_add_sep_token(False)
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", True)
    writer.add_token_type_count(2)


def visible_bytes() -> list[str]:
    """Give the character that stands for each byte in a byte-level vocabulary, by byte.

    Source: ``bytes_to_unicode`` of openai/gpt-2's encoder.py: printable Latin-1 stands for itself,
    the other bytes for the characters from U+0100 on.
    """
    itself = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (code for code in range(0x100, 0x200))
    return [chr(byte if byte in itself else next(others)) for byte in range(256)]


def byte_pairs() -> tuple[list[str], list[tuple[str, str]]]:
    """Make a byte-level vocabulary in which each word, with and without a space, is one piece.

    Returns:
        The pieces in the order of their ids, and the merges in the order of their rank: each word
        is put together from the left.
    """
    visible = visible_bytes()
    pieces = dict.fromkeys(visible)
    merges: dict[tuple[str, str], None] = {}
    for form in (form for word in WORDS for form in (f" {word}", word, word.capitalize())):
        letters = "".join(visible[byte] for byte in form.encode())
        for end in range(1, len(letters)):
            merges[letters[:end], letters[end]] = None
            pieces[letters[: end + 1]] = None
    return list(pieces), list(merges)
