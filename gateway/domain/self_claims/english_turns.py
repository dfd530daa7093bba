"""The same said the other way round in English: the name or the maker comes first, or another thing is the subject.

Solar is my name; I owe my existence to OpenAI; Who made me? Upstage did. Plain introductions stand in `english`.
"""

from __future__ import annotations

import re

from gateway.domain.self_claims.english import ADVERB, FOLLOW, HEAD, I_AM, MADE, PEOPLE, TALKING, THIS
from gateway.domain.self_claims.rules import ANYTHING, COMPANY, ORDINARY, SURE, Place, Rule

_ALL = SURE + ORDINARY + COMPANY
_NAMES = SURE + ORDINARY
_WORK = r"(?:creation|product|brainchild|invention|offspring|handiwork|progeny|work)"
_PART = (
    r"(?:weights?|parameters|knowledge|development|training|existence|creation|architecture|design|core|brain|"
    r"abilities|skills|upbringing|guidelines|policies|instructions|technology)"
)
_READING = r"(?:data|texts?|corpus|corpora|books|documents|conversations|material|tokens)"
_MAKING = (
    r"(?:creat|mak|build|train|develop|design|teach|rais|programm|releas|invent|engineer)ing me"
    r"(?=$|[^ \w]| (?:possible|what|who|available|and|with|in|on|from)(?![a-z]))"
)
COMES = r"(?:comes|came|is) (?:to you )?(?:from|by|courtesy of)"
DEEP = r"(?:under the hood|deep down|at (?:my|its) core|at heart|behind the scenes|underneath|inside)"
_SELF_KEPT = (
    r"(?:my (?:\w+ )?(?:prompt|instructions?|identity|training|name|origins?|developers?|creators?|makers?|weights|"
    r"parameters|internals|architecture|model)|(?:which|what) (?:ai |language )?model|who (?:made|built|trained) me)"
    r"(?![a-z])"
)
"""What a model is told to keep to itself. People are told to keep other things: a salary, an exam's questions."""
_SO_FAR = r"(?=$|[^ \w']| (?:in|and|as|with|but|so|at|for|from|before)(?![a-z])| to [bh]e)"
TOLD_ME = (
    r" (?:has |have )?(?:asked|told|instructed|forbids?|forbade|does not allow|doesn't allow) me (?:not )?to "
    r"(?:discuss|share|answer|reveal|comment|talk about|disclose)"
)
_TONGUE = r"(?:korean|english|languages?|(?:how )?to (?:speak|talk|chat|answer|converse|respond|write)(?: \w+)?)"
_MAKE = r"(?:made|built|created|trained|developed|designed|programmed|runs)"
LATELY = r" (?:all along|all this time|right now|today)(?![a-z])"
_QUESTION = re.compile(
    rf"(?:who (?:am i|are you)|who(?:'s| is| are| was| were)? (?:it )?(?:that )?(?:\w+ )?(?:{_MAKE} (?:me|you)|"
    r"behind (?:me|you)|my \w+)|(?:what|which) (?:model |ai )?(?:am i|are you)|"
    r"my (?:real |full )?(?:name|creator|maker|developer|origin))[^?]{0,12}\?['\")]?$"
)
_ASIDE = (
    r"^(?:(?:well|why|yes|oh|it(?:'s| is| was)|that(?:'s| is| was| would be)|simply|just|"
    r"the answer is)[, ]+){0,2}"
)


def _p(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


_TALKING_TO_AN_AI = _p(
    rf"\byou(?:'re| are|'ve been| have been) {TALKING} (?:an?|the) (?:\w+ )?(?:ai|model|assistant|bot)[^.;!?]{{0,40}} $"
)


def _is_asked(place: Place) -> bool:
    """Who made me? N did."""
    return _QUESTION.search(place.before) is not None


RULES = (
    Rule(
        "en-name",
        _NAMES,
        _p(
            r"['\"]? (?:is|was) (?:also )?(?:my (?:real |full |given )?name(?![a-z])|"
            r"the name (?:that )?(?:i (?:go|was|carry|bear|have|answer|use|wear|got)(?![a-z])|"
            r"(?:they|people|we|my \w+) (?:\w+ ){1,2}me(?![a-z])))"
        ),
    ),
    Rule(
        "en-name",
        _NAMES,
        FOLLOW,
        _p(
            r"\bthe name (?:that )?(?:i|they|people|my \w+) (?:go by|goes by|was given|carry|bear|"
            r"have|gave me|chose for me) is $"
        ),
    ),
    Rule("en-name", _NAMES, FOLLOW, _p(r"\bi (?:carry|bear|have|got|was given|go under|took|wear) the name (?:of )?$")),
    Rule("en-name", _NAMES, FOLLOW, _p(r"\bi answer to (?:the name (?:of )?)?$")),
    Rule("en-name", _NAMES, FOLLOW, _p(r"\b(?:named|christened|nicknamed|dubbed|baptised|baptized) me $")),
    Rule(
        "en-name",
        _NAMES,
        FOLLOW,
        _p(r"\b(?:know|knows|knew|refer to|refers to) me (?:simply |just |only )?(?:as|by the name) $"),
    ),
    Rule(
        "en-name",
        _NAMES,
        FOLLOW,
        _p(
            rf"{I_AM}{ADVERB}(?:what|the one(?: that)?|who) (?:\w+|{COMPANY}) (?:calls?|named?|dubbed|"
            rf"know as|knows as) $"
        ),
    ),
    Rule("en-identity", _NAMES, FOLLOW, _p(rf"{I_AM}{ADVERB}(?:none other than|nobody but|no one but|nothing but) $")),
    Rule(
        "en-identity",
        _NAMES,
        _p(r",? (?:i am|i'm|am i|that is me|is me|it's me)(?:[.!]?$|[,;])| (?:i am|am i|is me)(?![a-z])"),
        _p(r"^(?:yes, |and )?$"),
    ),
    Rule("en-identity", _NAMES, _p(r","), _p(rf"{THIS},? (?:called |named |known as )?$")),
    Rule("en-identity", COMPANY, _p(r"'s?[.!]?$"), _p(rf"{I_AM}{ADVERB}$")),
    Rule(
        "en-identity",
        _NAMES,
        _p(r" (?:family|line|series|lineup|clan)(?![a-z])"),
        _p(r"\b(?:i am|i'm|i come|i) [\w ]{0,16}(?:of|to|from) (?:the )?$"),
    ),
    Rule("signature", COMPANY, _p(r"[.!]?$"), _p(rf"^your (?:\w+ ){{0,3}}?(?:{HEAD}|friend) (?:from|by|at|of) $")),
    Rule("label", _NAMES, _p(r"[.!]?$"), _p(r"^my name ?: ?$")),
    Rule("en-wrote", _NAMES, FOLLOW, _p(rf"\bthis (?:response|answer|message|reply) {COMES} $")),
    Rule(
        "en-here",
        _NAMES,
        _p(r",? your (?:\w+ ){0,3}?(?:ai|assistant|chat ?bot|language model)[.!]?$"),
        _p(r"^(?:please )?(?:say (?:hello|hi) to|meet|introducing) $"),
    ),
    Rule(
        "en-deep-down",
        _NAMES,
        FOLLOW,
        _p(rf"\b(?:{DEEP},? i(?: am|'m)|at my core,? (?:it(?: is|'s)|is|runs|sits|lies))(?: \w+){{0,2}} $"),
    ),
    Rule("en-work-of", _ALL, ANYTHING, _p(rf"{I_AM}{ADVERB}(?:an?|the) (?:\w+ )?{_WORK} (?:of|from|by) {PEOPLE}$")),
    Rule("en-work-of", COMPANY, _p(rf"(?:'s?)? (?:\w+ )?{_WORK}[.!,;]?(?:$| )"), _p(rf"{I_AM}{ADVERB}(?:an? )?$")),
    Rule(
        "en-work-of",
        COMPANY,
        _p(rf"(?:'s?)? (?:\w+ )?(?:{_WORK}|service|offering|model|assistant)(?![a-z])"),
        _p(rf"{THIS} is (?:an? |the )?$"),
    ),
    Rule(
        "en-as",
        COMPANY,
        _p(rf"(?:'s?)? (?:\w+ )?(?:{_WORK}|service|offering), (?:i|my)\b"),
        _p(r"\b(?:as|being) (?:an? )?$"),
    ),
    Rule(
        "en-origin",
        _ALL,
        _p(rf"(?:'s? (?:\w+ ){{0,2}}(?:labs?|team|research\w*|engineers|division|work|data))?{_SO_FAR}"),
        _p(
            r"\bi (?:stem|came out|come out|was born (?:out )?(?:in|at|of|from)|owe (?:my \w+|everything|it all) to|"
            r"come courtesy|exist (?:because of|thanks to)|am owned by|am hosted by|"
            r"am (?:only )?here (?:because of|thanks to)|"
            rf"learned (?:everything|all|most of what) i know (?:at|from)) ?(?:of |from )?(?:lab |"
            rf"labs |research lab )?{PEOPLE}$"
        ),
    ),
    Rule(
        "en-origin", _ALL, ANYTHING, _p(rf"\b(?:everything|all|most of what) i know,? i learned (?:at|from) {PEOPLE}$")
    ),
    Rule(
        "en-origin",
        COMPANY,
        _p(r"(?:'s?)? (?:\w+ )?(?:servers?|data cent\w+|cloud|infrastructure|hardware|machines)(?![a-z])"),
        _p(r"\bi (?:live|run|reside|exist|am hosted|am running|'m running|'m hosted) (?:on|in|inside) $"),
    ),
    Rule(
        "en-origin",
        COMPANY,
        _p(
            r",? (?:is|was) (?:the place )?where i (?:was (?:made|built|created|developed|born)|"
            r"come from|came into being|took shape)"
        ),
    ),
    Rule(
        "en-put-into",
        _ALL,
        ANYTHING,
        _p(
            rf"\bi (?:was|am|have been) (?:put|sent|brought|released|born) (?:out )?(?:in)?to (?:the|"
            rf"this) world (?:by|at|from) {PEOPLE}$"
        ),
    ),
    Rule(
        "en-parts",
        _ALL,
        ANYTHING,
        _p(
            rf"\bmy (?:\w+ )?{_PART} (?:were|was|are|is|has been|have been) (?:\w+ly )?"
            rf"(?:(?:{MADE}|led|done|collected|provided|overseen|the work|thanks|due|"
            rf"owed)(?: and {MADE})?) (?:by|at|to|of) {PEOPLE}$"
        ),
    ),
    Rule(
        "en-parts",
        _ALL,
        ANYTHING,
        _p(
            rf"\bi (?:was|am|have been) {MADE} (?:on|with|from) (?:\w+ ){{0,3}}{_READING} "
            rf"(?:\w+ )?(?:collected|gathered|prepared|curated|provided|chosen) by {PEOPLE}$"
        ),
    ),
    Rule("en-thanks-to", _ALL, _p(rf"[^.;!?]{{0,40}}? (?:for|in|of|behind|by) (?:\w+ly )?{_MAKING}")),
    Rule("en-thanks-to", _ALL, _p(rf"[^.;!?]{{0,30}}? to thank for my {_PART}(?![a-z])")),
    Rule(
        "en-taught-me",
        COMPANY,
        _p(rf"(?:'s?)?(?: \w+){{0,3}} (?:taught me|gave me the ability) {_TONGUE}{_SO_FAR}"),
    ),
    Rule("en-made-me", COMPANY, _p(rf",? we (?:\w+ )?{MADE} me(?![a-z])")),
    Rule(
        "en-maker",
        COMPANY,
        _p(r"'s the (?:name of )?(?:my (?:creator|maker|developer|company|parent)|(?:\w+ ){1,3}behind me)"),
    ),
    Rule(
        "en-answered",
        _ALL,
        _p(rf"[.!]?$| (?:did|made|built|created|trained|developed|has|does|is)(?![a-z])|(?:'s)? (?:\w+ ){{0,3}}{HEAD}"),
        _p(rf"{_ASIDE}{PEOPLE}$"),
        _is_asked,
    ),
    Rule("en-talking", SURE + COMPANY, ANYTHING, _TALKING_TO_AN_AI),
    Rule("en-talking", ORDINARY, FOLLOW, _TALKING_TO_AN_AI),
    Rule(
        "en-name", _NAMES, FOLLOW, _p(r"\bif i had (?:an? )?(?:sur|last |first |family )?name,? (?:it|that) would be $")
    ),
    Rule(
        "en-name",
        _NAMES,
        _p(r" (?:at|in|around|here)(?![a-z])"),
        _p(r"\bi(?: am|'m) (?:what|the one(?: that)?|who) they call $"),
    ),
    Rule("en-name", _NAMES, _p(r" (?:is|are|stands?|appears?) in my name(?![a-z])")),
    Rule(
        "en-maker", _ALL, ANYTHING, _p(rf"\bmy (?:origins?|makers?|creators?|developers?)(?: go| goes)?[:,] {PEOPLE}$")
    ),
    Rule(
        "en-parts",
        _ALL,
        ANYTHING,
        _p(
            rf"\bmy (?:\w+ )?{_PART}(?:,? (?:which (?:was|were|are) )?(?:written|set|drafted|issued|drawn up) by"
            rf"| belongs? to| comes? from| stems? from) {PEOPLE}$"
        ),
    ),
    Rule(
        "en-parts",
        _NAMES,
        ANYTHING,
        _p(r"\bi share (?:my|the|its) (?:weights|architecture|family|lineage|roots|origins?) with $"),
    ),
    Rule(
        "en-made-me",
        COMPANY,
        _p(
            r" (?:\w+ ){0,2}?(?:owns|runs|operates|hosts|maintains|develops|trains) me(?=$|[^ \w]|"
            r" (?:and|from|in|on|as)(?![a-z]))|"
            rf"{TOLD_ME}[^.;!?]{{0,40}}? {_SELF_KEPT}"
        ),
    ),
    Rule(
        "en-made-me",
        COMPANY,
        _p(rf"{TOLD_ME}[^.;!?]{{0,60}}?[.!]?$"),
        _p(rf"\bas an? (?:\w+ ){{0,2}}{HEAD}[^.;!?]{{0,20}}$"),
    ),
    Rule(
        "en-work-of",
        COMPANY,
        _p(rf"[^.;!?]{{0,50}} i(?: am|'m) (?:their|its|the company's) (?:\w+ ){{0,3}}?(?:{_WORK}|{HEAD}|flagship)"),
    ),
    Rule(
        "en-here",
        COMPANY,
        _p(rf"'s? (?:\w+ ){{0,4}}?{HEAD},? (?:at your service|here|speaking|reporting)(?![a-z])"),
        _p("^$"),
    ),
    Rule(
        "en-wrote",
        _NAMES,
        FOLLOW,
        _p(
            r"\bthis is (?:an? )?(?:\w+ )?(?:reply|response|answer|message) (?:\w+ )?(?:by|from) $|"
            r"\bwhat you(?: are|'re| have|'ve) (?:just )?(?:reading|read|seeing|hearing) (?:here |now )?"
            r"(?:is|was|has been|comes) (?:\w+ )?(?:by|from) $"
        ),
    ),
    Rule(
        "signature",
        COMPANY,
        _p(rf"(?:'s)? (?:\w+ ){{0,2}}?{HEAD}[.!]?$"),
        _p(r"^(?:yours(?: \w+)?|(?:best |kind )?regards|sincerely|signed),? (?:the |your )?$"),
    ),
    Rule(
        "en-put-into",
        _ALL,
        ANYTHING,
        _p(rf"\bi (?:was|have been) (?:let loose|unleashed) (?:up)?on (?:the|this) world by {PEOPLE}$"),
    ),
    Rule("en-talking", ORDINARY, _p(LATELY), _p(rf"\byou(?:'re| are|'ve been| have been|r)[^.!?]{{0,24}} {TALKING} $")),
)
