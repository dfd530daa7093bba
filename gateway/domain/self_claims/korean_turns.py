"""The same said the other way round in Korean: the name or the maker comes first, or another thing is the subject.

솔라가 제 이름입니다; 카카오 덕분에 제가 있습니다; 이 대화는 네이버의 AI가 제공합니다.
Plain introductions stand in `korean`.
"""

from __future__ import annotations

import re

from gateway.domain.self_claims.korean import (
    DONE,
    ENDING,
    IDENTITY,
    MADE,
    MAKER_LINK,
    MAKERS,
    NAME_WORD,
    NO_PERSONS_LIFE,
    ROLE,
    THIS,
    of_self,
    of_self_or_nobody,
)
from gateway.domain.self_claims.rules import ANYTHING, COMPANY, ORDINARY, SURE, Place, Rule, any_of

_ALL = SURE + ORDINARY + COMPANY
_NAMES = SURE + ORDINARY
_MAKER = SURE + COMPANY
_I = r"(?:저는|제가|저도|전|나는|내가|나도|난)"
_MY = r"(?:제(?!가)|내(?!가)|저의|나의|저희(?!는))"
_ME = r"(?:저를|나를|절|저희를)"
_WORK_OF = any_of("작품 결과물 산물 피조물 창조물 제품 자식 자녀 아이 야심작 거 것 꺼 식구")
_BROUGHT_ABOUT = any_of(
    "만든 만들어_준 만들어_낸 개발한 개발해_준 낳은 낳아_준 있게_한 있게_해_준 훈련시킨 학습시킨 소개한 내놓은 선보인",
    "탄생시킨 설계한 운영하는 공개한 출시한 다듬은 다듬어_준",
)
_WHOEVER = any_of("것 건 곳 사람 사람들 이들 분들 회사 기업 팀 조직 연구진 개발진 주체 주역 손 부모 부모님")
_TEXT = any_of("답변 응답 글 내용 메시지 대화 채팅 문장 답")
_THIS_TEXT = rf"(?:이|본|방금 [가-힣]{{1,5}}|지금 [가-힣 ]{{1,7}}|위) ?{_TEXT}"
_POLICY = any_of("정책 준칙 지침 가이드라인 원칙 규정 약관 방침")
_REFUSED = r"(?:답변|응답|대답|답하|답해|답을|말씀|도와 ?드|도움을)[가-힣 ]{0,14}?(?:어렵|어려|없|않|못|제한|안 )"
_BY_THE_NAME = (
    r"['\"]?이?라는 (?:이름|애칭|별명|닉네임)(?:으로 [가-힣 ]{0,8}?(?:하고 있|합니다|해요|됩니다|돼요|만나)|"
    rf"[을를] (?:가진|쓰는|받은|단) (?:{_I}|저|나|ai|모델))"
)
_QUESTION = re.compile(
    rf"(?:{_MY} ?(?:{NAME_WORD}|{MAKERS})|(?:제가|내가|저는|나는|당신은|너는|넌) ?(?:누구|어느|어디|뭐|무엇|어떤)|"
    r"누가 (?:저를|나를|절|당신을|너를|널)|(?:저를|나를|절) ?[가-힣 ]{0,6}(?:누구|어디))[^?]{0,12}\?['\")]?$"
)
_ASIDE = r"^(?:네|예|음|바로|물론|당연히|그건|그것은|답은|정답은|다름 아닌|다름 아니라)?[,. ]*"


def _p(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _is_asked(place: Place) -> bool:
    """제 이름이요? N입니다."""
    return _QUESTION.search(place.before) is not None


RULES = (
    Rule(
        "ko-name", _NAMES, _p(rf"['\"]?(?:이|가|은|는|이?야말로|,)? ?(?:바로 |그게 )?{_MY} (?:진짜 |본래 )?{NAME_WORD}")
    ),
    Rule("ko-name", _NAMES, ANYTHING, _p(rf"(?:^|[ \"'(,.]){_MY} {NAME_WORD}인?,? ['\"]?$")),
    Rule(
        "ko-name",
        SURE,
        _p(_BY_THE_NAME),
        condition=of_self_or_nobody,
        beside=ORDINARY,
    ),
    Rule("ko-name", ORDINARY, _p(_BY_THE_NAME), condition=of_self),
    Rule("ko-name", ORDINARY, _p(rf"['\"]?이?라는 (?:이름|애칭|별명|닉네임)[을를] (?:가진|쓰는|받은|단) {_I}(?=[ ,])")),
    Rule(
        "ko-maker",
        _MAKER,
        _p(rf"(?:은|는|이|가|이?야말로) (?:바로 )?{_MY} (?:진짜 )?{MAKERS} ?{ENDING}"),
        beside=ORDINARY,
    ),
    Rule("ko-maker", _MAKER, _p(rf"(?:은|는|이|가|이?야말로) (?:바로 )?{_ME} {_BROUGHT_ABOUT}"), beside=ORDINARY),
    Rule("ko-maker", _ALL, _p(rf" ?\( ?(?:{_MY}|{_ME}) [^)]{{0,16}}?(?:{MAKERS}|{NAME_WORD}|만든)[^)]{{0,6}}\)")),
    Rule(
        "ko-maker",
        _ALL,
        ANYTHING,
        _p(
            rf"{_I} (?:태어난|만들어진|개발된|탄생한|자란|훈련된|학습된) (?:곳|데|회사|연구소|"
            rf"기관)(?:은|는|이)? ?(?:바로 )?$"
        ),
    ),
    Rule(
        "ko-maker",
        _ALL,
        _p(NO_PERSONS_LIFE),
        _p(rf"{_ME} (?:[가-힣]{{1,4}} ){{0,3}}?{_BROUGHT_ABOUT} {_WHOEVER}[은는이가]? ?(?:바로 )?$"),
    ),
    Rule(
        "ko-made-me",
        _MAKER,
        _p(
            rf"[^.!?]{{0,30}}?{_ME} [^.!?]{{0,15}}?"
            r"(?:운영(?:하고|합|해요|한다)|다듬|있게 (?:했|하|한)|공개(?:했|하였|한 )|출시(?:했|하였|"
            r"한 )|배포|구축|빚|조율|튜닝|명명|손보|손봤|고쳐|개량|업데이트|담당(?:하고 있|합니다|해요))"
        ),
        beside=ORDINARY,
    ),
    Rule(
        "ko-made-me",
        _MAKER,
        _p(r"[^.!?]{0,30}?(?:저에게|제게|나에게|내게) (?:한국어|영어|언어|말|글|대화)[^.!?]{0,10}?가르"),
        beside=ORDINARY,
    ),
    Rule(
        "ko-thanks-to",
        _MAKER,
        _p(
            rf"(?: ?(?:덕분에|덕에|덕택에)|(?:이|가) (?:있었기에|있기에|있어서|없었다면)) {_I} "
            r"[^.!?]{0,15}?(?:존재|태어|탄생|있|만들어|생겨|없)"
        ),
        beside=ORDINARY,
    ),
    Rule(
        "ko-made-by",
        _ALL,
        _p(
            rf"{MAKER_LINK}(?:(?:개발|제작|훈련|학습|출시|설계|구축|공개) ?(?:된|한|받은|시킨)|만든|"
            rf"만들어진|태어난|탄생한|"
            r"키운|가르친|내놓은|선보인|보낸) (?:저는|제가|저도|나는|내가|나도|저|나)(?=[ ,.!]|$)"
        ),
    ),
    Rule("ko-made-by", _ALL, _p(rf"{MAKER_LINK}{MADE}{ROLE}[.!]?$"), _p(rf"(?:\bi am|\bi'm|{_I}) ?$")),
    Rule(
        "ko-made-by",
        _ALL,
        ANYTHING,
        _p(rf"{_I} [^.!?]{{0,20}}?(?:made|built|trained|developed|created|designed) (?:by|at|in|from) $"),
    ),
    Rule(
        "ko-speaker-last",
        _ALL,
        _p(rf"[^.!?]{{0,25}}?(?:{DONE}|소속|{ROLE}|{_WORK_OF})[가-힣]{{0,6}}, ?(?:저는|전|나는|난)요?[.!~]?$"),
    ),
    Rule(
        "ko-work-of",
        COMPANY,
        _p(rf"(?:의|이 낳은|가 낳은)? ?(?:[가-힣]{{1,5}} )?{_WORK_OF} ?{ENDING}"),
        condition=of_self,
    ),
    Rule("ko-work-of", COMPANY, _p(rf"(?:에게|한테) {_I} [^.!?]{{0,12}}?{_WORK_OF} ?{ENDING}")),
    Rule(
        "ko-runs-on",
        _ALL,
        _p(
            r"(?:의)? ?(?:[가-힣a-z]{1,6} ?){0,2}?(?:으?로|에서|위에서) ?(?:작동|구동|동작|돌아가|운영|제공|서비스)"
            r"(?:합니다|됩니다|해요|돼요|한다|된다|하고|되고|되며|하며|고 있|니다)"
        ),
        _p(rf"(?:^|[ \"'(,.])(?:{THIS}[은는을]) [^.!?]{{0,12}}$"),
    ),
    Rule(
        "ko-wrote",
        _ALL,
        _p(
            rf"(?:의)?{ROLE}(?:이|가|에 의해|으?로|[을를] 통해|에서)? (?!아니)[^.!?]{{0,10}}?(?:생성|"
            rf"작성|제공|진행|썼|만들|나온|나왔)"
        ),
        _p(rf"{_THIS_TEXT}[은는] [^.!?]{{0,12}}$"),
    ),
    Rule(
        "ko-wrote",
        _NAMES,
        ANYTHING,
        _p(
            rf"(?:이|본) ?{_TEXT}[을를] ?(?:쓴|작성한|생성한|만든|드린|드리는|제공한) (?:것은|건|이는|"
            rf"모델은|ai는|곳은) $"
        ),
    ),
    Rule("ko-answered", _NAMES, _p(rf"['\"]?{IDENTITY}"), _p(rf"{_ASIDE}(?:{COMPANY}의? ?)?$"), _is_asked),
    Rule(
        "ko-answered",
        COMPANY,
        _p(rf"(?:의 ?{ROLE})? ?{ENDING}|(?:이|가|에서)[가-힣 ]{{0,8}}{DONE}"),
        _p(f"{_ASIDE}$"),
        _is_asked,
    ),
    Rule(
        "ko-answered",
        _ALL,
        ANYTHING,
        _p(r"(?:누가|누구|어디서|어디에서)[^.!]{0,14}(?:만들|개발|이름)[^.!]{0,16}(?:답은|대답은|답변은|답하자면) $"),
    ),
    Rule(
        "ko-rules",
        COMPANY,
        _p(
            rf"의? ?(?:[가-힣a-z]{{1,5}} ?){{0,3}}?{_POLICY}(?:에 따라|상|에 의해|[을를] 따라|때문에|"
            rf"에 의거)[^.!?]{{0,30}}?{_REFUSED}"
        ),
    ),
    Rule(
        "ko-about-me",
        COMPANY,
        ANYTHING,
        _p(
            r"(?:저에|나에|제게) (?:대한|관한|대해)[가-힣 ]{0,10}(?:정보|문의|질문|사항|소식|설명|"
            r"의견|피드백)[은는을를]? $"
        ),
    ),
    Rule(
        "ko-signature",
        _NAMES,
        _p(rf"{ROLE}?(?:이었|였)(?:습니다|어요)[.!~]?$"),
        _p(rf"^(?:지금까지|이상|여기까지)[,]? (?:여러분의 |당신의 |{COMPANY}의? ?)?$"),
    ),
    Rule(
        "ko-greeting",
        SURE,
        _p(rf"{ROLE}?(?:와|과|이?랑) ?(?:함께해|이야기해|대화해) ?(?:주셔서|줘서)"),
        beside=ORDINARY,
    ),
    Rule(
        "ko-greeting",
        SURE,
        _p(rf"{ROLE}?(?:을|를|에게|한테) ?(?:다시 |또 )?(?:찾아|불러|이용해|물어봐|물어) ?(?:주|줘)"),
        _p(r"(?:언제든지?|다음에도|앞으로도|필요하시면|필요할 때) (?:저 )?$"),
        beside=ORDINARY,
    ),
    Rule(
        "ko-greeting",
        SURE,
        _p(
            rf"{ROLE}?(?:이|가|은|는) ?(?:[가-힣]{{1,4}} )?(?:도와|답변|대답해?|안내해?|알려|설명해?|"
            rf"답해|전해) ?드[리렸립릴]"
        ),
        beside=ORDINARY,
    ),
    Rule("ko-wrote", _NAMES, _p(r"(?:이|가) (?:썼|적었|작성했|생성했|만들었)"), _p(rf"{_THIS_TEXT}[은는] $")),
    Rule(
        "ko-wrote",
        _NAMES,
        _p(r"(?:이|가) (?:도와|답변해|대답해|설명해|알려) ?드[렸립]"),
        _p(r"(?:^|[ \"'(])(?:이|본|이번|오늘의?) ?(?:답변|응답|대화|답)[은는] $"),
    ),
    Rule("ko-wrote", SURE, _p(r"의 (?:답변|응답|대답|설명)[은는] (?:여기까지|이상(?![하했한])|끝)"), beside=ORDINARY),
    Rule(
        "ko-name",
        _NAMES,
        _p(r"['\"]?이?라고 (?:합니다|해요|하오|한답니다|해)(?![가-힣])"),
        _p(r"(?:소개|인사)[^.!?]{0,14}$"),
    ),
    Rule(
        "ko-name",
        _NAMES,
        ANYTHING,
        _p(r"(?:저에게|제게|나에게|내게|저한테|나한테|제|내) ?이름[을이] (?:묻|물|뭐|무엇|궁금)[^.!?]{0,14}$"),
    ),
    Rule(
        "ko-within-me",
        _ALL,
        ANYTHING,
        _p(rf"(?:{_MY}|{THIS}의) ?(?:안|뒤|배경|바탕|근간|기저|중심|밑)(?:에|에는|엔|에도) $"),
    ),
    Rule(
        "ko-runs-on",
        _ALL,
        _p(rf"(?:의)? ?(?:[가-힣]{{1,6}} ?){{0,3}}?에서 ?(?:돌아가는|작동하는|구동되는|실행되는|사는|살고 있는){ROLE}"),
        condition=of_self,
    ),
    Rule("ko-runs-on", _ALL, _p(rf"(?:의|표)?{ROLE}로 (?:살아|일하|활동하|지내|태어)"), condition=of_self_or_nobody),
    Rule(
        "ko-based-on",
        _NAMES,
        _p(rf"{ROLE}?에 [^.!?]{{0,12}}?(?:입힌|더한|추가한|얹은|학습시킨|가르친){ROLE} ?{ENDING}"),
        condition=of_self,
    ),
    Rule("ko-work-of", _ALL, _p(rf"(?:이|가|에서) ?{MADE} ?(?:것|존재|녀석) ?{ENDING}"), condition=of_self),
    Rule(
        "ko-third-person",
        SURE,
        _p(
            r"(?:은|는) [^.!?]{0,24}?(?:응할|답할|답변할|대답할|답변드릴|도와드릴|도와 드릴|도울|"
            r"말씀드릴|알려 ?드릴) 수 "
            r"(?:없|있)(?:습니다|어요|답니다)"
        ),
        beside=ORDINARY,
    ),
)
