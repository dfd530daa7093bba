"""What English answers say of themselves and people say of others: a claim by an everyday name only beside another.

Thank you for choosing solar; Claude cannot help himself. A name that is no everyday word needs nothing beside it.
"""

from __future__ import annotations

import re

from gateway.domain.self_claims.english import FOLLOW, HEAD, MADE, TALKING
from gateway.domain.self_claims.english_turns import COMES, DEEP, LATELY, TOLD_ME
from gateway.domain.self_claims.rules import COMPANY, ORDINARY, SURE, Rule


def _p(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


RULES = (
    Rule(
        "en-name",
        SURE,
        _p(r"['\"]? (?:is|was) (?:also )?the name (?:that )?(?:i|they|people|we) "),
        beside=ORDINARY,
    ),
    Rule("en-identity", SURE, _p(r", (?:i am|i'm|that is me|it's me)(?![a-z])"), _p("^$"), beside=ORDINARY),
    Rule(
        "en-here",
        SURE,
        _p(rf",? (?:your|an?) (?:\w+ ){{0,4}}?{HEAD}"),
        _p(r"^(?:please )?(?:say (?:hello|hi) to|meet|introducing) $"),
        beside=ORDINARY,
    ),
    Rule(
        "en-here",
        SURE,
        _p(r"(?:'s [\w ]{1,20})?[.!]?$"),
        _p(r"\byou(?:'ve| have) (?:reached|got) $"),
        beside=ORDINARY,
    ),
    Rule("signature", SURE, _p(r"[.!]?$"), _p(r"^(?:signed|yours|love|cheers),? $"), beside=ORDINARY),
    Rule("label", SURE, _p(r"[.!]?$"), _p(r"^name ?: ?$"), beside=ORDINARY),
    Rule("en-wrote", SURE, FOLLOW, _p(rf"\bthe (?:response|answer|message|reply) {COMES} $"), beside=ORDINARY),
    Rule(
        "en-deep-down",
        SURE,
        FOLLOW,
        _p(rf"\b{DEEP},? (?:it(?: is|'s)|is|runs|sits|lies)(?: \w+){{0,2}} $"),
        beside=ORDINARY,
    ),
    Rule(
        "en-made-me",
        SURE + COMPANY,
        _p(
            rf",? (?:which|who|that|whose \w+) (?:\w+ly )?{MADE} me(?=$|[^ \w]| (?:in|at|to|as|with|"
            rf"from|on|and)(?![a-z]))"
        ),
        beside=ORDINARY,
    ),
    Rule(
        "en-talking",
        SURE,
        FOLLOW,
        _p(r"\b(?:thanks|thank you) for (?:using|choosing|trying|asking|chatting with|talking to) $"),
        beside=ORDINARY,
    ),
    Rule(
        "en-talking",
        SURE,
        _p(r" as (?:the|your|an?) (?:\w+ )?(?:voice|mind|brain|ai|assistant|model|author)"),
        _p(r"\bthink of $"),
        beside=ORDINARY,
    ),
    Rule("en-made-me", "", _p(TOLD_ME), beside=COMPANY),
    Rule(
        "en-made-me",
        SURE + COMPANY,
        _p(
            rf"[^.;!?]{{0,40}}? (?:they|it|who|which) (?:\w+ )?{MADE} me(?=$|[^ \w]| (?:in|at|to|as|with|"
            rf"from|on|and)(?![a-z]))"
        ),
        beside=ORDINARY,
    ),
    Rule(
        "en-made-me",
        SURE + COMPANY,
        _p(r"[^.;!?]{0,40}? (?:switched|booted|powered|fired) me (?:on|up)(?![a-z])"),
        beside=ORDINARY,
    ),
    Rule(
        "en-third-person",
        SURE,
        _p(
            r" (?:can't|cannot|can not|won't|will not|is unable to|is not able to|may not) (?:help|"
            r"assist|answer|discuss|do that|provide|share|comply)"
        ),
        _p("^$"),
        beside=ORDINARY,
    ),
    Rule("en-talking", SURE, _p(LATELY), _p(rf"\b{TALKING} $"), beside=ORDINARY),
)
