import pytest

from benchmarks.demo_model.docstrings import MAX_WORDS, answer_from_docstring


@pytest.mark.parametrize(
    ("docstring", "answer"),
    [
        ("Return the absolute value of x.", "Return the absolute value of x."),
        ("f(x, y=1) -> list\n\nDo something useful with x", "Do something useful with x."),
        ("D.pop(k) -> v, remove the key and return it.", "Remove the key and return it."),
        (
            "Use the :func:`~os.walk` helper to\n  walk   a ``tree``.",
            "Use the os.walk helper to walk a tree.",
        ),
        ("Open a `file' for reading.", "Open a file for reading."),
        ("Sort the list now.\n\n>>> f()\n3", "Sort the list now."),
        ("Sort the list now.\n\n    x\n      The list to sort.", "Sort the list now."),
        ("Sort the list now. See the documentation above.", "Sort the list now."),
        (
            "Sort everything in place, e.g. The list. It takes a while.",
            "Sort everything in place, e.g. The list. It takes a while.",
        ),
    ],
)
def test_answer_is_the_cleaned_first_sentences(docstring: str, answer: str) -> None:
    assert answer_from_docstring(docstring) == answer


@pytest.mark.parametrize(
    "docstring",
    [
        None,
        "",
        "Too short.",
        "Return self==value, whatever it is.",
        "Initialize self. See help(type(self)) for accurate signature.",
        "f(x) -> y",
        "This function is deprecated since a while.",
        "The options are as follows:",
        "An unbalanced (parenthesis in a sentence.",
        "word " * (MAX_WORDS + 1) + ".",
    ],
)
def test_what_is_no_sane_sentence_is_refused(docstring: str | None) -> None:
    assert answer_from_docstring(docstring) is None


def test_second_sentence_is_left_out_where_both_are_too_long() -> None:
    first = "Return " + "a value " * 12 + "now."
    second = "It is " + "very long " * 8 + "indeed."
    assert answer_from_docstring(f"{first} {second}") == first
