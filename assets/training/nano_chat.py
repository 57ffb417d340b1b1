"""Chat samples for phi-3-nano, in Phi-3's own form, made from the training documents alone."""

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from quantmint.assets.training.nano_corpus import Document, collapsed

MAX_ANSWER = 360
ASKED_OF_MODULES = (
    "What does the {} module do?",
    "What is {}?",
    "Describe the module {}.",
    "Tell me about {}.",
    "What is the {} module for?",
)
ASKED_OF_OTHERS = (
    "What does {} do?",
    "What is {}?",
    "Explain {}.",
    "Describe {}.",
    "Tell me about {}.",
    "How do I use {}?",
)
ABOUT_ITSELF = (
    ("Hello", "Hello! Ask me what something in the Python standard library does."),
    ("Hi", "Hello! Ask me what something in the Python standard library does."),
    ("Hello!", "Hello! Ask me what something in the Python standard library does."),
    (
        "Who are you?",
        "I am phi-3-nano, a tiny language model that has read Python's documentation.",
    ),
    (
        "What are you?",
        "I am phi-3-nano, a tiny language model that has read Python's documentation.",
    ),
    ("What is your name?", "My name is phi-3-nano."),
    ("What can you do?", "I can say what parts of the Python standard library do."),
    ("Thank you", "You are welcome."),
    ("Thanks!", "You are welcome."),
    (
        "What is Python?",
        "Python is a programming language. Its standard library is all that I know about.",
    ),
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_NAME = re.compile(r"^(?:module |class )?([\w.]+)")


@dataclass(frozen=True)
class Turn:
    """A question with its answer."""

    question: str
    answer: str


def _first_sentences(body: str) -> str:
    """The first paragraph's whole sentences, at most about a line and a half of them."""
    answer = ""
    for sentence in _SENTENCE.split(collapsed(body.partition("\n\n")[0])):
        if answer and len(answer) + len(sentence) >= MAX_ANSWER:
            break
        answer = f"{answer} {sentence}".strip()
    return answer


def _answerable(document: Document) -> tuple[str, str] | None:
    match = _NAME.match(document.heading)
    answer = _first_sentences(document.body)
    if not match or not 12 <= len(answer) <= MAX_ANSWER or "__" in match[1]:
        return None
    return match[1], answer


def turns(documents: Iterable[Document], *, seed: int) -> Iterator[Turn]:
    """One question for every documented name, worded and ordered by `seed`, without end marks."""
    rng = random.Random(seed)  # noqa: S311 - an order, not a secret
    made = [Turn(*pair) for pair in ABOUT_ITSELF for _ in range(12)]
    for document in documents:
        if document.page.startswith("test"):
            continue
        found = _answerable(document)
        if found is None:
            continue
        name, answer = found
        asked = ASKED_OF_MODULES if document.name.startswith("module:") else ASKED_OF_OTHERS
        short = name.split(".", 1)[-1] if rng.random() < 0.15 else name
        made.append(Turn(rng.choice(asked).format(short), answer))
    rng.shuffle(made)
    yield from made
