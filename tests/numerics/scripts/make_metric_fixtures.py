"""Scores of answers by the reference implementations, for the tests of `train::metrics`.

    python make_metric_fixtures.py > crates/train/tests/fixtures/metrics.json

Needs sacrebleu 2.6.0, rouge-score 0.1.2 and scikit-learn 1.9.1.
"""

import json
import random
import string
import sys

from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU
from sklearn.metrics import accuracy_score, f1_score

WORDS = (
    "the a cat dog sat on mat ran over quick brown fox jumps lazy it's 3.14 1,000 e.g. don't "
    "U.S. state-of-the-art 2-3 Über café naïve 東京 (yes) [no] {maybe} \"quoted\" &amp; &lt;b&gt; "
    "x=y a/b 50% $5 #1 end. stop, go! why? semi; colon: dash- -dash ... -- 'single' snake_case"
).split()


def label(text):
    """The label that an answer names, as `train::metrics::label` has it."""
    return text.strip(string.whitespace + string.punctuation).lower()


def is_json(text):
    def refuse(_):
        raise ValueError("RFC 8259 knows no such constant")

    try:
        json.loads(text.strip(), parse_constant=refuse)
    except ValueError:
        return False
    return True


def scores(answers, references):
    rouge = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    measures = [rouge.score(r, a)["rougeL"].fmeasure for a, r in zip(answers, references)]
    right = [label(text) for text in references]
    given = [label(text) for text in answers]
    exact = [a.strip() == r.strip() for a, r in zip(answers, references)]
    return {
        "exactMatch": sum(exact) / len(exact),
        "accuracy": accuracy_score(right, given),
        "macroF1": f1_score(
            right, given, labels=sorted(set(right)), average="macro", zero_division=0
        ),
        "rougeL": sum(measures) / len(measures),
        "bleu": BLEU().corpus_score(answers, [references]).score,
        "jsonValidity": sum(map(is_json, answers)) / len(answers),
    }


def noisy(rng, words):
    """The words with some left out, swapped or replaced."""
    out = []
    for word in words:
        chance = rng.random()
        if chance < 0.1:
            continue
        out.append(rng.choice(WORDS) if chance < 0.25 else word)
    return out


def cases():
    rng = random.Random(20)
    labels = ["positive", "negative", "neutral"]
    yield "labels", [
        (rng.choice(labels + ["Positive.", " NEGATIVE ", "none of these"]), rng.choice(labels))
        for _ in range(200)
    ]
    yield "one label", [("positive", "positive"), ("negative", "positive")]
    for number in range(4):
        pairs = []
        for _ in range(20):
            reference = [rng.choice(WORDS) for _ in range(rng.randint(1, 25))]
            pairs.append((" ".join(noisy(rng, reference)), " ".join(reference)))
        yield f"text {number}", pairs
    yield "same", [("The cat sat on the mat.", "The cat sat on the mat.")]
    yield "short", [("a cat", "the cat sat on the mat")]
    yield "no common word", [("one two three four five", "six seven eight nine ten")]
    yield "no 4-gram in common", [("the cat sat down here", "the cat ran over the hill")]
    yield "long answer", [("the cat sat on the mat and then it ran away", "the cat sat on the mat")]
    yield "empty answer", [("", "the cat"), ("the cat sat on it", "the cat sat on it")]
    yield "all empty", [("", ""), (" ", "")]
    yield "lines", [("first line\nsecond-\nline ", "first line\nsecond line"), ("a\tb c d e", "a b c d e")]
    yield "json", [
        ('{"a": 1}', '{"a": 1}'), (' [1, 2] ', "[1, 2]"), ("{'a': 1}", '{"a": 1}'),
        ('{"a": 1} thanks', '{"a": 1}'), ("null", "null"), ("NaN", "1"), ('"x"', '"x"'),
        ('{"a": 1,}', "{}"), ("", "{}"), ('```json\n{"a": 1}\n```', '{"a": 1}'),
    ]


def main():
    out = []
    for name, pairs in cases():
        answers, references = [a for a, _ in pairs], [r for _, r in pairs]
        case = {"name": name, "answers": answers, "references": references}
        out.append(case | {"scores": scores(answers, references)})
    json.dump(out, sys.stdout, indent=1, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
