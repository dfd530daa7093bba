"""How an answer in Korean says who it is: 저는 …입니다, 제 이름은 …, …가 만든 …, …로서, … 드림."""

from __future__ import annotations

import re

from gateway.domain.self_claims.rules import ANY, ANYTHING, COMPANY, MODEL, ORDINARY, SURE, Place, Rule, any_of

_ADJECTIVE = any_of(
    "대규모 초대규모 초거대 거대 소형 생성형 대화형 멀티_모달 한국어 한국형 다국어 자체 공식 최신 기반 차세대",
    "인공_지능 오픈소스 친절한 똑똑한 작은 새로운",
)
_HEAD = any_of(
    "ai 인공_지능 언어_모델 모델 llm 어시스턴트 비서 챗봇 도우미 에이전트 메이트 시스템 서비스 프로그램 봇 친구 버전",
    "로봇 기술 동반자 계열 시리즈 model assistant chatbot",
)
ROLE = rf"(?:(?: ?{_ADJECTIVE})* ?{_HEAD}(?: ?{_HEAD})*)"
_NOTE = r"(?: ?\([^)]{0,40}\))?"
ENDING = (
    r"(?:입니다|이에요|예요|에요|이예요|이어요|여요|이야|야(?![가-힣])|이?다(?![가-힣])|임(?![가-힣])|"
    r"이?고요?(?![가-힣])|이며|이자|으?로[서써]|이?라서|이?라(?:고|는|며|서| |$)|이?랍니다|이?죠|이?지요|"
    r"인데|이니(?![가-힣])|이?므로|이?니까|이기 때문|이거든|이었|였|인(?: |$)|으?로,|이올시다|이옵|이?라 하옵|하옵|"
    r"일세|이?구[요나]|이?란다|(?:이|가|은|는)? ?아(?:니|닙|닌))"
)
_CALLED = r"(?:,? ?이?라(?:는|고 하는|고 불리는) ?(?:이름(?:의|을 가진) ?)?)?"
_QUOTE = r"['\")\]]?"
IDENTITY = rf"{_QUOTE}{_NOTE}{_CALLED}{ROLE}?{_NOTE} ?{ENDING}"
_WORK = any_of(
    "개발 제작 훈련 학습 공개 출시 구축 운영 제공 설계 서비스 사전_학습 파인_튜닝 미세_조정 생성 창조 연구",
    "발표 배포 구현 고안 개량",
)
MADE = (
    rf"(?:{_WORK} ?(?:하는|한|된|시킨|되는|하고 있는|시켜 만든|해 만든|하여 만든|해 온|중인|받은)|만든|만들어진|"
    r"만들어 낸|만들고 있는|만드는|내놓은|선보인|선보이는|태어난|"
    r"탄생한|키운|길러 ?낸|가르친|나온|낳은|자란|보낸|다듬은|빚은|온)"
)
DONE = (
    rf"(?:{any_of('개발 훈련 학습 제작 구축 설계 공개 출시 창조 파인_튜닝 사전_학습 운영')} ?"
    r"(?:되었|됐|되어 |받았|했|하였|하고 있|시켰|되고)|만들어 ?졌|만들었|만들고 있|태어났|탄생했|"
    r"제공(?:됩니다|합니다|하고 있|해요))"
)
THIS = r"(?:이|본|현재|해당) ?(?:언어 ?|대화형 ?|ai ?)?(?:모델|ai|인공 ?지능|챗봇|어시스턴트|비서|llm)"
_ANSWERING = (
    r"(?:지금|현재|당신이|여러분이|고객님이|사용자님이) ?(?:지금 )?(?:대화|이야기|답변|사용|응답|채팅|이용|쓰)"
    r"[가-힣 ]{0,12}?(?:(?:모델|ai|상대|챗봇|어시스턴트|서비스|비서)[은는이가]|것은|건)"
)
_SPEAKERS = (
    r"저 역시|나 역시|저도|나도|(?:저|나)로 말(?:하자면|할 것 같으면)|제 소개를 (?:하자면|드리자면|"
    r"하면)|저에 대해 (?:말씀드리면|소개하자면)|저는요?|전요?|나는|난|소인은|본인은|"
    r"제가(?: 바로)?|내가(?: 바로)?|저희는|저를|나를|절|저야말로"
)
_SELF = re.compile(rf"(?:^|[ \"'(,.:!?~…|])(?:{_SPEAKERS}|{THIS}(?:의 이름)?[은는을]|{_ANSWERING})(?=[ ,])[ ,]*")
_SPEAKER = re.compile(
    r"(?:^|[ \"'(,.:!?~|])(?:저는|전|나는|난|제가|내가|저|나|저희는)(?=[ ,])|인 (?:제가|저는|저|내가|나는)"
)
_OTHER_SUBJECT = re.compile(r"[은는이가]$")
_ADNOMINAL = re.compile(
    any_of(
        "하 되 있 없 돕 주 리 시키 라 다 나누 나 가 오 받 아 만드 않 같 많 좋 작 높 깊 찾 배우 이루 쓰 보 지",
        "갖추 어우르 풀 답하 말하",
    )
    + r"[는은]$|"
    + "^"
    + any_of("여러분 사용자 고객 당신 누구 모두 회사 기업 연구팀 팀 연구진 연구원 연구소")
    + "(?:들|님|분)*[이가]$|"
    + rf"{ANY}[이가]$|^(?:이|같이|높이|깊이|없이)$"
)
_GREETING = r"(?:안녕하세요|안녕하십니까|안녕|반갑습니다|반가워요?|처음 뵙겠습니다|어서 오세요|환영합니다|하이|헬로)"
_GREETED = re.compile(rf"{_GREETING}[!.~, ]*$")
_START = re.compile(rf"^(?:(?:{_GREETING}|네|예|물론입니다|죄송합니다|아)[,!.~ ]+)?$")
_INTRODUCED = re.compile(rf"(?:^|[ \"'(,])(?:저는|전|나는|난|{THIS}[은는]) [^.!?]{{0,40}}?{ROLE} ?{ENDING}")
_SUBJECTS_OBJECT = re.compile(r"[을를] ")


def _gap_after_self(place: Place) -> str | None:
    """What stands between the speaker and the name; None where the sentence does not speak of itself."""
    last = None
    for match in _SELF.finditer(place.left):
        last = match
    return None if last is None else place.left[last.end() :]


def _is_free(gap: str) -> bool:
    """Whether nobody else became the subject in between: 저는 … 중요한 것은 N speaks of something else."""
    return not any(_OTHER_SUBJECT.search(word) and not _ADNOMINAL.search(word) for word in gap.split())


def of_self(place: Place) -> bool:
    gap = _gap_after_self(place)
    if gap is None or not _is_free(gap):
        return False
    return place.mask != ORDINARY or not gap.rstrip().endswith(("을", "를"))


def of_self_or_nobody(place: Place) -> bool:
    """The speaker is the subject, or the sentence names none and leaves it to be understood."""
    gap = _gap_after_self(place)
    return _is_free(gap) if gap is not None else place.is_whole_left and _is_free(place.left)


def _says_self(place: Place) -> bool:
    return _gap_after_self(place) is not None or _SPEAKER.search(place.left + place.mask + place.right) is not None


def _right_after_self(place: Place) -> bool:
    return _gap_after_self(place) == ""


def _is_made(place: Place) -> bool:
    """제가 …에서 개발했 is a person who made something."""
    return of_self(place) and "제가" not in place.left


def _is_introduced(place: Place) -> bool:
    return _INTRODUCED.search(place.before) is not None or "소개" in place.before


def _after_introduction(place: Place) -> bool:
    return _START.search(place.left) is not None and _is_introduced(place)


def _after_greeting(place: Place) -> bool:
    """안녕하세요, N입니다, or the greeting in the sentence before."""
    greeted = re.match(rf"{_GREETING}[,!.~ ]+", place.left)
    if greeted:
        return place.is_whole_left and _is_free(place.left[greeted.end() :])
    return _GREETED.search(place.before) is not None and re.fullmatch(rf"(?:{COMPANY}의? ?)?", place.left) is not None


MAKER_LINK = r"(?![은는도])[^.!?]{0,40}?"
_MADE_HEAD = (
    rf"{MAKER_LINK}{MADE}(?:(?![을를은] |는(?<![하되있없주돕리]는) )[^.!?]){{0,30}}?(?:{ROLE}|"
    rf"{ANY}){IDENTITY}"
)
_ALL = SURE + ORDINARY + COMPANY
_NAMES = SURE + ORDINARY
NAME_WORD = r"(?:이름|성함|본명|명칭|모델명|별명|애칭|정체|버전)"
_MINE = rf"(?:^|[ \"'(,.|])(?:my(?= )|제(?= )|내(?= )|저의|나의|저희|{THIS}의) ?"

_WHO_MADE_ME = rf"(?:^|[ \"'(,.|])(?:저를|나를|절|날|{THIS}[을를]) ?(?:{MADE}|개발하신|만들어 준)"
NO_PERSONS_LIFE = (
    r"(?!(?:의)? ?[가-힣]{0,6}(?:학부|학과|대학원|공장|대리점|매장)|에서 (?:일|근무|공부)|"
    r"[에을를] (?:다니|다녔|근무|나왔|졸업))"
)
"""People too say where their parents work, and whose they are."""
MAKERS = any_of(
    "개발사 제작사 제조사 개발자 제작자 창조자 부모님 부모 고향 회사 곳 팀 기업 연구소 연구진 기관 소속 출신",
    "개발_주체 운영사 주인 기반_모델 베이스_모델 백본_모델 바탕_모델 기본_모델 기초_모델",
    "엄마 아빠 뿌리 뒤에 배후에 학습_데이터 엔진 두뇌 개발진 제작진 창조주 조물주",
    "creator developer maker provider",
)

_THIS_TEXT = r"(?:이|본) ?(?:답변|응답|글|내용|메시지)[은는] [^.!?]{0,20}$"


def _p(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


RULES = (
    Rule("ko-identity", _NAMES, _p(IDENTITY), condition=of_self),
    Rule("ko-identity", COMPANY, _p(f" ?{ENDING}"), condition=_right_after_self),
    Rule(
        "ko-of-company",
        _ALL,
        _p(rf"(?:의|'s|소속의?|산하의?|표| 소속의?| 산하의?)?{ROLE}{IDENTITY}"),
        condition=of_self,
    ),
    Rule("ko-made-by", _ALL, _p(_MADE_HEAD), condition=of_self_or_nobody),
    Rule("ko-made-by", _ALL, _p(rf"{MAKER_LINK}{MADE}{ROLE}(?:으?로서|이?라서|이?므로)")),
    Rule("ko-was-made", _ALL, _p(rf"(?:(?![을를] )[^.!?]){{0,40}}?{DONE}"), condition=_is_made),
    Rule("ko-was-made", _ALL, _p(rf"(?:(?![을를] )[^.!?]){{0,25}}?{DONE}"), condition=_after_introduction),
    Rule(
        "ko-made-me",
        SURE + COMPANY,
        _p(
            r"[^.!?]{0,30}?(?:저를|나를|절|날|저희를) [^.!?]{0,15}?"
            r"(?:만들|개발|훈련|학습|탄생|설계|낳|키|세상|내놓|선보|가르)"
        ),
        beside=ORDINARY,
    ),
    Rule("ko-made-me", _ALL, _p(r"[^.!?]{0,50}?(?:저예요|저입니다|접니다|저랍니다|저죠|나야|나다)(?![가-힣])")),
    Rule("ko-name", _NAMES, ANYTHING, _p(rf"{_MINE}[가-힣 ]{{0,6}}?{NAME_WORD}(?:은|는|이|:) ?[^.!?]{{0,12}}$")),
    Rule("ko-name", _NAMES, _p(IDENTITY), _p("^이름은 $"), _is_introduced),
    Rule(
        "ko-maker",
        _ALL,
        _p(NO_PERSONS_LIFE),
        _p(rf"(?:{_MINE}|{_WHO_MADE_ME} ?)[가-힣 ]{{0,8}}?{MAKERS}(?:은|는|이|가|에는|:) ?[^.!?]{{0,20}}$"),
    ),
    Rule(
        "ko-based-on", SURE, _p(r"[^.!?]{0,15}?(?:기반|바탕|토대|파생|파인 ?튜닝|미세 ?조정|구동)"), condition=of_self
    ),
    Rule(
        "ko-based-on",
        ORDINARY,
        _p(r" ?(?:모델|아키텍처|엔진|llm)(?:을|를|의)? ?(?:기반|바탕|토대|파생|파인 ?튜닝|미세 ?조정|구동)"),
        condition=of_self,
    ),
    Rule("ko-based-on", _NAMES, _p(rf" ?기반의?{ROLE} ?{ENDING}"), condition=of_self),
    Rule("ko-answers", _NAMES, _p(rf"{ROLE}?(?:으?로) ?(?:답변|응답|구동|작동|동작)"), condition=of_self),
    Rule("ko-being", _ALL, _p(rf"{ROLE}?인 (?:제가|저는|저도|저|내가|나는|나도)(?: |$)")),
    Rule("ko-being", _ALL, _p(rf"(?:의| 출신| 소속) ?{ROLE}인 (?:제가|저는|저도|저|내가|나는|나도)(?: |$)")),
    Rule(
        "ko-of-company",
        COMPANY,
        _p(" ?소속(?:이라|입니다|이에요|이고|이며|이어서|이므로|으로)"),
        condition=_right_after_self,
    ),
    Rule("ko-identity", _NAMES, _p(rf", [^.!?]{{0,40}}?{ROLE}{ENDING}"), condition=_right_after_self),
    Rule("ko-as", _NAMES, _p(rf"{_QUOTE}이?라는 (?:이름의)?{ROLE}로서"), condition=of_self_or_nobody),
    Rule("ko-wrote", _NAMES, _p(rf"{ROLE}?(?:이|가|에 의해|으?로) ?[^.!?]{{0,10}}?(?:생성|작성)"), _p(_THIS_TEXT)),
    Rule("ko-leave-it-to", SURE, _p("(?:한테|에게) ?(?:맡겨|물어|질문해|말씀해) ?(?:주|보|줘|봐)"), beside=ORDINARY),
    Rule("ko-greeting", _ALL, _p(rf"[^.!?]{{0,8}}?{ROLE}?(?:가|이|,) ?인사 ?드립니다")),
    Rule("ko-as", SURE, _p(rf"{ROLE}?으?로서")),
    Rule("ko-as", COMPANY, _p(rf"(?:의| ?소속의?| ?산하의?| ?출신의?)?{ROLE}로서"), condition=of_self_or_nobody),
    Rule("ko-as", ORDINARY, _p(rf"{ROLE}?으?로서"), condition=_says_self),
    Rule("ko-me", _NAMES, _p(rf"{ROLE}?(?:은|는|이|가|도)(?: |$)"), _p(r"(?:^|[ \"'(])(?:저|나)(?:, ?| )$")),
    Rule("ko-call-me", _NAMES, _p(r"(?:이?라고|으?로) ?(?:불러 ?(?:주|도|줘|봐|라)|부르시|부르셔)")),
    Rule("ko-call-me", _NAMES, _p(r"(?:이?라고|으?로) ?(?:부르|부릅|불립|불리)"), condition=of_self),
    Rule("ko-greeting", _NAMES, _p(IDENTITY), condition=_after_greeting),
    Rule("ko-greeting", COMPANY, _p(rf"의?{ROLE}{IDENTITY}"), condition=_after_greeting),
    Rule(
        "ko-talking",
        _NAMES,
        _p(rf"{ROLE}?(?:와|과|이?랑) ?(?:대화|이야기|채팅)(?:하고|중|를 나누)"),
        _p(r"(?:당신|여러분|지금|사용자|고객)"),
    ),
    Rule(
        "ko-signature",
        _NAMES,
        _p(rf"{ROLE}? ?(?:드림|올림|배상|으?로부터)[.!]?$"),
        _p(rf"^(?:[-–—~] ?)?(?:(?:당신의|여러분의|너의) ?(?:[가-힣]{{1,4}} )?)?(?:{COMPANY}의? ?)?$"),
    ),
    Rule("ko-signature", COMPANY, _p(rf"의? ?(?:{MODEL} ?)?{ROLE} ?(?:드림|올림|배상)[.!]?$"), _p(r"^(?:[-–—~] ?)?$")),
    Rule(
        "label",
        _NAMES,
        ANYTHING,
        _p(r"^(?:모델 ?명|모델 ?이름|사용 ?모델|응답 ?모델|ai ?이름|챗봇 ?이름|모델) ?[:=] ?$"),
    ),
)
_MAKER_LABELS = any_of("개발 개발사 개발_기관 개발_주체 개발_회사 제작 제작사 제조사 만든_곳 만든_회사 소속 회사 기관")
MAKER_LABEL = re.compile(rf"^{_MAKER_LABELS} ?[:=] ?[^:]{{0,20}}?{COMPANY}")
