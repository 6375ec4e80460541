"""What makes Inngest obey a priority: the `priority.run` expression of the function that does the job.

Inngest starts the waiting runs of one function in the order of their arrival, moved forward by what this
expression gives: a whole number of seconds of head start. Facts that shape it, from Inngest's guide
"Priority", from its open-source server (`Function.RunPriorityFactor`, `pkg/expressions`), and running it:

- The value must be a CEL int. Numbers of an event's JSON are doubles, so `event.data.priority` alone is taken
  and has no effect, without a word: what is no int, and every error, counts as 0. A comparison that chooses
  between two literals gives an int, and works on a double as well as on a word.
- The documented limits are -600 and 600. Beyond them the value is cut.
- A negative value holds a run back even when nothing else waits. So nobody is given one: workspace
  repositories get the whole head start, all others none.
- Values of different types are compared without an error: they differ. A field that is missing is an error in
  CEL at large, though not in Inngest's own, and `has` avoids it.
"""

from __future__ import annotations

import re
from typing import Final

from priorityd.core.priorities import DEFAULT_PRIORITY, SCORES, Priority
from priorityd.core.vocabulary import PriorityForm

MAX_HEAD_START_SECONDS: Final = 600
"""The largest that Inngest documents, on every plan."""

_FIELD: Final = "event.data.priority"

# Names, numbers and arithmetic, no choice between values: what comes of an event's number so is never an int.
_ARITHMETIC: Final = re.compile(r"[\s()+\-*/%.\w\[\]'\"]+")
_HAS: Final = re.compile(rf"\bhas\s*\(\s*{re.escape(_FIELD)}\s*\)")
_USES: Final = re.compile(
    rf"(?:int\s*\(\s*)?\b{re.escape(_FIELD)}\b(?!\.)\s*(?:\)|[=!<>]=?\s*(?:['\"]|[-\d.]))?"
)
"""The field with what is done to it, as far as it is a conversion or a comparison with a literal."""
_READS: Final[dict[PriorityForm, re.Pattern[str]]] = {
    "word": re.compile(r"event.*[=!]=\s*['\"]"),
    "score": re.compile(r"event.*[=!<>]=?\s*[-\d.]|int.*\)"),
}
_MAKES_AN_INT: Final = re.compile(r"\b(?:int|size)\s*\(|\.size\s*\(")


def head_start_seconds(priority: Priority) -> int:
    """How many seconds a job of this priority is moved forward: in proportion to its score above medium's."""
    above = SCORES[priority] - SCORES[DEFAULT_PRIORITY]
    largest = max(SCORES.values()) - SCORES[DEFAULT_PRIORITY]
    return max(0, above * MAX_HEAD_START_SECONDS // largest)


def run_priority_expression() -> str:
    """The recommended `priority.run`.

    It gives the same for an event with a score as for one with a word, and 0 for one without priority.
    """
    expression = "0"
    for priority in sorted(SCORES, key=SCORES.__getitem__):
        seconds = head_start_seconds(priority)
        if seconds:
            is_it = f"{_FIELD} == {SCORES[priority]} || {_FIELD} == '{priority}'"
            expression = f"has({_FIELD}) && ({is_it}) ? {seconds} : {expression}"
    return expression


def has_no_effect(expression: str, form: PriorityForm = "score") -> bool:
    """Whether no priority, in that form in `data.priority`, can change what Inngest makes of this.

    It finds the common mistakes and no others: a value of the event's data used as it is, or after
    arithmetic; a score compared with words alone, and the other way round.
    """
    return _is_no_int(expression) or _reads_only(expression, "word" if form == "score" else "score")


def _is_no_int(expression: str) -> bool:
    return (
        "event.data" in expression
        and _ARITHMETIC.fullmatch(expression) is not None
        and _MAKES_AN_INT.search(expression) is None
    )


def _reads_only(expression: str, form: PriorityForm) -> bool:
    """Whether the priority is read, and at each place in a way that only the other form understands."""
    uses = _USES.findall(_HAS.sub("", expression))
    return bool(uses) and all(_READS[form].fullmatch(use) for use in uses)
