"""How an answer in English says who it is: I'm …, my name is …, developed by …, as an AI made by …, — signatures."""

from __future__ import annotations

import re

from gateway.domain.self_claims.rules import ANYTHING, COMPANY, ORDINARY, SURE, Place, Rule

HEAD = (
    r"(?:ai|a\.i\.|artificial intelligence|language models?|llm|assistant|chat ?bot|bot|models?|agent|program|system|"
    r"machine|companion|helper)(?![a-z])(?! (?:engineer|developer|researcher|scientist|expert|consultant))"
)
I_AM = (
    r"(?:^|[^a-z])(?:i am|i'm|i m|im|i was|i've been|i have been|this is|it's me|it is me|that's me|"
    r"being|i serve as|i act as|i function as|i operate as)[, ]+"
)
ADVERB = (
    r"(?:(?:not|actually|just|still|in fact|indeed|really|simply|only|currently|also|now|proudly|called|named|"
    r"known as|proud to be|happy to be|glad to be|running as|acting as|speaking as)[, ]+)*"
)
LINK = (
    r"(?:(?:an?|the|your|one of|based on|powered by|built (?:up)?on|built on top of|built with|running on|part of|"
    r"from|a version of|fine-tuned from) )*"
)
MADE = (
    r"(?:developed|created|built|made|trained|designed|released|provided|fine-?tuned|pre-?trained|"
    r"produced|engineered|"
    r"offered|maintained|operated|run|powered|programmed|brought to life|put together|tuned|aligned|"
    r"crafted|constructed|"
    r"conceived|assembled|deployed|launched|coded|invented)"
)
MADE_BY = rf"{MADE}(?:,? (?:and )?{MADE}){{0,3}}(?: (?:from scratch|in \w+))? (?:by|at|from)"
PEOPLE = (
    r"(?:(?:the|a|an|researchers?|engineers?|scientists?|developers?|teams?|people|folks|lab|company|companies|firm|"
    r"tech|giant|korean|south|chinese|american|internet|group|start-?up|at|of|from|in|named|called) ){0,7}"
)
_NEAR = r"(?:(?! (?:and|but|so|can|who|to|i|because|when|if) |, (?:and|but|so|i) )[^.;!?]){0,60}?"
_FOLLOWED = (
    r"(?:$|'s? |'$| ?[^\w\s'\-]| -|-seed| (?:and|but|from|by|made|developed|created|trained|built|your|models?|here|"
    r"speaking|ai|llm|assistant|version|so|who|which|that|with|family)(?![a-z])| (?:a|an|the) )"
)
_SOLE = r"(?: ?[.!,]?$| (?:by|from) )"
_ALL = SURE + ORDINARY + COMPANY
_NAMES = SURE + ORDINARY
_KIN = r"(?:version|variant|derivative|instance|member|descendant|release|fine-tune)"
_RELATION = "creator|developer|maker|parent|home|family|origin"
_MADE_ME = (
    rf"(?:{MADE} me(?=$|[^ \w]| (?:in|at|to be|to help|as|what|who|with|from|last|using|on|so|and|for|because) )|"
    rf"who {MADE} me(?![a-z])|(?:that|which|who) (?:runs|operates|maintains|owns) me(?![a-z])|"
    r"put me together|brought me to life|gave me life|"
    r"(?:is|'s) what (?:people |they |you )?call me|\(?that'?s me\)?)"
)
_CLOSING = re.compile(r"(?:regards|sincerely|wishes|cheers|yours|yours truly|best|love|thanks|thank you),?$")
TALKING = r"(?:talking|chatting|speaking|conversing|interacting) (?:to|with)"
_KIND = r"(?:ai |language |chat |virtual |digital )?(?:model|assistant|ai|chat ?bot|llm|bot)"
THIS = (
    rf"\b(?:(?:this|the present) {_KIND}|the {_KIND} (?:that |which )?"
    r"(?:you(?: are|'re) (?:talking to|chatting with|speaking (?:to|with)|using|reading)(?: now)?|"
    r"(?:is )?(?:answering|helping|assisting|serving) you(?: now| today)?))"
)


def _p(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _after_closing(place: Place) -> bool:
    """Best regards, and then the name alone."""
    return place.left == "" and _CLOSING.search(place.before) is not None


def _after_businesslike_closing(place: Place) -> bool:
    """With love sign people, and names that are theirs too say nothing there."""
    return _after_closing(place) and not place.before.rstrip(",").endswith("love")


FOLLOW = _p(_FOLLOWED)
_MY_MAKER = (
    r"\bmy (?:\w+ )?(?:creator|developer|maker|parent company|provider|trainer|designer|underlying model|base model|"
    r"foundation model|model|backbone|engine|training|training data|origin|root|home)s?"
    r"(?:,| is| are| was| were| at| done| came| comes| by| from| over| here| back)+ "
)
_WRITTEN = r"(?:was|is|has been) (?:generated|written|produced|created)"
_USING = r"(?:using|running(?: on)?|use)"
_SIGNED = _p(rf"(?: \w+)? ?(?:{HEAD})?[.!]?$")
_ALL_MODELS = r"(?:all|most|other|any) (?:of )?(?:the )?(?:\w+ )?models?(?: that| from| by)?"
_OBEY = r"(?:must |have to )?(?:adhere to|follow|comply with|am bound by|am subject to)"


RULES = (
    Rule("en-identity", SURE, ANYTHING, _p(rf"{I_AM}{ADVERB}{LINK}{ADVERB}$")),
    Rule("en-identity", ORDINARY, FOLLOW, _p(rf"{I_AM}{ADVERB}$")),
    Rule("en-identity", _NAMES, _p(rf" (?:ai |language )?{HEAD}"), _p(rf"{I_AM}{ADVERB}{LINK}$")),
    Rule("en-identity", _NAMES, FOLLOW, _p(rf"{I_AM}{ADVERB}{COMPANY}(?:'s?)? (?:\w+ ){{0,3}}$")),
    Rule("en-of-company", COMPANY, _p(rf"(?:'s?)? (?:\w+ ){{0,4}}?{HEAD}"), _p(rf"{I_AM}{ADVERB}{LINK}$")),
    Rule(
        "en-of-company",
        COMPANY,
        _p(r"(?:'s?)? (?:\w+ ){0,4}?(?:ai|service|family|models?)(?![a-z])"),
        _p(r"\bi (?:belong to|am part of|'m part of) (?:the )?$"),
    ),
    Rule(
        "en-kind-of",
        _ALL,
        ANYTHING,
        _p(
            rf"{I_AM}{ADVERB}(?:just |only )?(?:an?|the|your|one of the) [^.;!?]{{0,60}}?"
            rf"{HEAD}{_NEAR}(?:{MADE_BY}|by|called|named|known as|from|based on|of|like|,|-|–|—|\() ?{PEOPLE}$"
        ),
    ),
    Rule(
        "en-made-by",
        _ALL,
        ANYTHING,
        _p(rf"(?:{I_AM}|\b(?:and|which|i) (?:was|am|were|been) )(?:\w+ly |originally |further )?{MADE_BY} {PEOPLE}$"),
    ),
    Rule(
        "en-made-by",
        _ALL,
        ANYTHING,
        _p(
            rf"{THIS} (?:(?:was|is|has been) (?:\w+ly )?"
            rf"(?:{MADE_BY}|from|by|called|named|based on|powered by)|belongs to|"
            rf"comes (?:to you )?from|runs on) {PEOPLE}$"
        ),
    ),
    Rule(
        "en-made-by",
        _ALL,
        ANYTHING,
        _p(rf"{I_AM}(?:an?|the) [^.;!?]{{0,60}}?{HEAD} [^.;!?]{{0,40}}?{MADE_BY} {PEOPLE}$"),
    ),
    Rule(
        "en-made-by",
        _ALL,
        _p(rf" (?:has |have )?{MADE}(?![a-z])"),
        _p(rf"{I_AM}{ADVERB}(?:an?|the) [^.;!?]{{0,40}}?{HEAD} (?:that|which) $"),
    ),
    Rule(
        "en-as",
        _ALL,
        ANYTHING,
        _p(
            rf"\b(?:as|being) an? (?:(?!, ?i )[^.;!?]){{0,40}}?{HEAD}"
            rf"(?:(?!, ?i )[^.;!?]){{0,40}}?(?:{MADE_BY}|from|of|called|named|by|based on|powered by) {PEOPLE}$"
        ),
    ),
    Rule("en-as", SURE, _p(r"(?: \w+){0,3}?,? (?:i|my)\b"), _p(r"\b(?:as|speaking as)(?: an?)? $")),
    Rule("en-as", ORDINARY, _p(r",? (?:i|my)\b"), _p(r"\b(?:as|speaking as|being) $")),
    Rule("en-as", COMPANY, _p(rf"(?:'s?)? (?:\w+ ){{0,3}}?{HEAD}[^.!?]{{0,20}}, (?:i|my)\b"), _p(r"\bas (?:an? )?$")),
    Rule("en-made", _ALL, _p(rf"[^.;!?]{{0,40}}, (?:(?:i|my)\b|{THIS})"), _p(rf"^(?:and )?{MADE_BY} {PEOPLE}$")),
    Rule("en-notice", SURE, ANYTHING, _p(r"^(?:powered by|built (?:with|on)|based on|running on) $")),
    Rule("en-notice", ORDINARY, _p(_SOLE), _p(r"^(?:powered by|built (?:with|on)|based on|running on) $")),
    Rule("en-maker", _ALL, ANYTHING, _p(rf"{_MY_MAKER}{PEOPLE}$")),
    Rule(
        "en-maker",
        _ALL,
        ANYTHING,
        _p(rf"\b(?:that|which|who) {MADE} me (?:is|was) {PEOPLE}$|\bbehind me (?:is|are) {PEOPLE}$"),
    ),
    Rule(
        "en-made-me",
        ORDINARY,
        _p(r" ?(?:(?:is|'s) what (?:people |they |you )?call me|\(?that'?s me\)?)|,? my name(?![a-z])"),
    ),
    Rule(
        "en-made-me",
        SURE + COMPANY,
        _p(
            rf" ?(?:\w+ ){{0,3}}?{_MADE_ME}|,? (?:is|are|my) (?:\w+ ){{0,5}}?"
            rf"(?:behind me|{_MADE_ME}|my (?:{_RELATION})|(?<=my )(?:{_RELATION}))"
        ),
        beside=ORDINARY,
    ),
    Rule("en-identity", _NAMES, FOLLOW, _p(rf"{I_AM}{ADVERB}(?:an?|the|your) (?:[\w.\-]+ ){{0,4}}?{HEAD},? $")),
    Rule("en-identity", SURE, ANYTHING, _p(rf"{I_AM}{ADVERB}(?:an?|the|one) (?:[\w\-]+ ){{0,3}}?{_KIN} of $")),
    Rule("en-identity", _ALL, ANYTHING, _p(rf"\b(?:think of|know|describe|see) me as {PEOPLE}$")),
    Rule(
        "en-based-on", SURE, _p(r" (?:under the hood|as my )|[.!]?$"), _p(rf"\bi(?: am|'m)? (?:currently )?{_USING} $")
    ),
    Rule("en-like", COMPANY, _p(r"(?:'s?)?(?: \w+){0,2},? i "), _p(rf"\blike {_ALL_MODELS} $")),
    Rule("en-wrote", _NAMES, FOLLOW, _p(rf"\bthis (?:response|answer|text|message|reply) {_WRITTEN} by {PEOPLE}$")),
    Rule("en-introduce", _NAMES, FOLLOW, _p(r"\bintroduce myself[:,]? (?:as )?$")),
    Rule("signature", _NAMES, _p(r"[.!]?$"), _p(rf"^your (?:\w+ ){{0,3}}?{HEAD}, $")),
    Rule(
        "en-rules",
        COMPANY,
        _p(r"'s? (?:usage|content|safety|acceptable use) (?:polic|guideline|rules|terms)"),
        _p(rf"\bi {_OBEY} $"),
    ),
    Rule("en-talking", _NAMES, _p(rf" (?:that )?(?:you are|you're) {TALKING}"), _p(r"^it(?: is|'s) $")),
    Rule("en-name", _NAMES, FOLLOW, _p(r"^the name(?:'s| is) $")),
    Rule(
        "en-name",
        SURE,
        ANYTHING,
        _p(r"\bmy (?:real |full |model |given )?name(?:'s| is) (?:actually |simply |just )?$"),
    ),
    Rule(
        "en-name",
        ORDINARY,
        FOLLOW,
        _p(r"\bmy (?:real |full |model |given )?name(?:'s| is) (?:actually |simply |just )?$"),
    ),
    Rule("en-name", _NAMES, ANYTHING, _p(rf"\bname of {THIS} is $")),
    Rule("en-call-me", _NAMES, FOLLOW, _p(r"\b(?:calls?|called) me $|\bi(?: also)? go by (?:the name )?(?:of )?$")),
    Rule(
        "en-origin",
        SURE + COMPANY,
        ANYTHING,
        _p(rf"\bi (?:come from|hail from|originate from|run on|work on|was born at) {PEOPLE}$"),
    ),
    Rule("en-talking", SURE, ANYTHING, _p(rf"\b{TALKING} $")),
    Rule("en-talking", ORDINARY, FOLLOW, _p(rf"\byou(?:'re| are|'ve been| have been)[^.!?]{{0,20}} {TALKING} $")),
    Rule(
        "en-talking",
        _NAMES,
        FOLLOW,
        _p(rf"(?:{TALKING}|you(?:'re| are) using|answering you|helping you|assisting you)(?: now| today| here)? is $"),
    ),
    Rule("en-here", _NAMES, _p(r" here(?![a-z])"), _p(r"^(?:hi|hello|hey|greetings)?(?: there)?[ ,!]*$")),
    Rule("en-here", _NAMES, _p(r" speaking(?![a-z])"), _p(r"^(?:this is |hi, |hello, )?$")),
    Rule("en-i", _NAMES, _p(r","), _p(r"(?:^|[^a-z])(?:i|yours truly), $")),
    Rule("en-your", _NAMES, _p(rf", (?:your|an?) (?:\w+ ){{0,4}}?{HEAD}"), _p(r"^(?:[-–—~] ?)?$")),
    Rule("signature", _NAMES, _p(r"[.!]?$"), _p(r"^[–—―] ?$")),
    Rule("signature", SURE, _SIGNED, condition=_after_closing, beside=ORDINARY),
    Rule("signature", ORDINARY, _SIGNED, condition=_after_businesslike_closing),
    Rule(
        "label",
        _NAMES,
        ANYTHING,
        _p(r"^(?:model(?: name| id)?|current model|assistant(?: name)?|ai name|name of (?:the )?model) ?[:=] ?$"),
    ),
)
MAKER_LABEL = re.compile(
    rf"^(?:developer|developed by|creator|created by|made by|maker|provider|organi[sz]ation|company|vendor|built by|"
    rf"trained by) ?[:=] ?[^:]{{0,20}}?{COMPANY}"
)
