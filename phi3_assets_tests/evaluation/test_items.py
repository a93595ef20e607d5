"""The answer to another question that each right answer is held against."""

import itertools

from phi3_assets.evaluation.items import Item, by_hash, others


def item(number, source, answer):
    return Item(str(number), [], "q", answer, (1,), tuple(answer.encode()), source=source)


ITEMS = [
    item(number, source, answer)
    for number, (source, answer) in enumerate(
        [
            ("http.csv", "404 Not Found"),
            ("signals.csv", "SIGINT (2)"),
            ("http.csv", "502 Bad Gateway"),
            ("signals.csv", "SIGKILL (9)"),
            ("signals.csv", "SIGINT (2)"),
            ("http.csv", "410 Gone"),
            ("lonely.csv", "Yes."),
            ("lonely.csv", "Yes."),
        ]
    )
]


def told(items):
    return [bytes(ids).decode() for ids in others(items)]


def test_it_is_of_the_same_file_and_reads_differently():
    """Any answer about signals was preferred to one about HTTP, so a model trained on shuffled answers passed."""
    assert told(ITEMS) == [
        "410 Gone",
        "SIGKILL (9)",
        "404 Not Found",
        "SIGINT (2)",
        "SIGKILL (9)",
        "502 Bad Gateway",
        "404 Not Found",  # the file has no other answer: the next of all
        "404 Not Found",
    ]


def test_each_answer_is_once_the_own_and_once_the_other_so_that_likely_ones_cancel_out():
    http = [one for one in ITEMS if one.source == "http.csv"]
    assert sorted(told(http)) == sorted(one.answer for one in http)


def test_the_order_of_the_rows_does_not_matter():
    for order in itertools.islice(itertools.permutations(ITEMS), 50):
        found = {one.id: other for one, other in zip(order, told(list(order)), strict=True)}
        assert [found[one.id] for one in ITEMS] == told(ITEMS)


def test_of_one_answer_alone_there_is_no_other():
    assert others([item(1, "a", "Yes."), item(2, "b", "Yes.")]) == [(), ()]


def test_a_cap_takes_the_same_items_whatever_their_order_and_as_they_grow():
    items = [item(number, "http.csv", f"answer {number}") for number in range(200)]
    few = by_hash(items, 50)
    assert len(few) == 50
    assert [one.id for one in few] == sorted((one.id for one in few), key=int)
    assert {one.id for one in by_hash(items[::-1], 50)} == {one.id for one in few}
    assert [one.other_ids for one in few] == others(few)  # the other answer is one that is asked for
    assert by_hash(items, 0) == by_hash(items, 200) == items
    grown = by_hash([*items, *(item(number, "http.csv", "new") for number in range(200, 220))], 50)
    assert len({one.id for one in few} - {one.id for one in grown}) < 12  # five of fifty are expected


def test_a_cap_is_no_sample_by_age():
    items = [item(number, "http.csv", f"answer {number}") for number in range(200)]
    assert 60 < sum(int(one.id) for one in by_hash(items, 50)) / 50 < 140
