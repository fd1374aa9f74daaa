import pytest

from embellama.bench.texts import long_texts, short_texts


@pytest.mark.parametrize("make", [short_texts, long_texts])
def test_texts_are_many_different_and_always_the_same(make):
    texts = make(300)
    assert len(set(texts)) == 300
    assert texts == make(300)
    assert make(5) == texts[:5]
    assert make(0) == []


@pytest.mark.parametrize(("make", "low", "high"), [(short_texts, 12, 17), (long_texts, 225, 255)])
def test_they_are_as_long_as_they_say(make, low, high, engine):
    texts = make(40)
    mean = sum(engine.count_tokens("minilm", text) for text in texts) / len(texts)
    assert low < mean < high
