"""Which of the older encodings a text has that is not UTF-8: the one in which it reads like writing.

charset-normalizer alone takes KOI8-R for Japanese, Greek for Bulgarian and Mac for Korean (3.5.2, tried on sentences of
19 languages). So each encoding that people still meet is tried, and its letters are judged where they stand; where none
reads well, charset-normalizer is asked.
"""

import codecs
import unicodedata
from collections import Counter
from functools import cache

_SINGLE_BYTE = (
    *("cp1252", "cp1250", "cp1255", "cp1251", "cp1253", "cp1254", "cp1257", "cp1256", "cp874", "koi8_r", "koi8_u"),
    *("iso8859_2", "iso8859_7", "iso8859_5", "iso8859_6", "iso8859_9", "iso8859_15", "cp1258"),
    *("mac_roman", "mac_cyrillic", "mac_greek", "mac_latin2", "cp850", "cp852", "cp866", "cp437", "cp737", "cp862"),
)
"""In the order of preference among those in which a text reads the same."""
_SHIFTED = ("iso2022_jp_2", "iso2022_kr", "hz", "utf_7")
"""Encodings that hold nothing beyond ASCII."""
_MULTI_BYTE = ("gb18030", "big5", "cp932", "euc_jp", "cp949")
_ALPHABETS = [
    set(letters + letters.upper())
    for letters in (
        *("äöüß", "éèêëàâçôûîïùœæ", "ñáéíóúü", "ãõçáéíóúâêôàü", "àèéìòù", "äöåéæøü", "áéíóúýþæöð"),
        *(
            "ąćęłńóśźż",
            "áčďéěíňóřšťúůýž",
            "áäčďéíĺľňóôŕšťúýž",
            "áéíóöőúüű",
            "ăâîșțşţ",
            "ăâđêôơưàáèéìíòóùúý",
            "čćđšž",
            "çğıöşüâîûİ",
        ),
        *("äöõüšž", "āčēģīķļņšūž", "ąčęėįšųūž", "абвгдежзийклмнопрстуфхцчшщъыьэюяё"),
        *("абвгґдеєжзиіїйклмнопрстуфхцчшщьюяў", "абвгдђежзијклљмнњопрстћуфхцчџш"),
        "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋ",  # not ΐ and ΰ: the latter is where Hebrew has its Alef
    )
]
"""What languages write beyond ASCII."""
_FREQUENT = set(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里"
    "用道行所然家种事成方多经么去法学如"
    "都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已"
    "工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西"
    "斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气"
    "题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至"
    "队形社便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象完设式色路记南品住告类求据程北边死"
    "张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运笔关键开关按钮压力置泵额阀秒闭"
    "這個們來為國說時會對於著過發後裡經麼沒動還進樣開從實無與長機關點業將兩間問頭體見產話給門東聲員論處義"
    "認條係氣題爾別變總電數報結務場計許統區隊決馬聽達強難權設記類據該規萬覺術領確傳師觀讓帶導爭運壓幫閥閉"
    "日一国会人年大本中長出時自行社見月分後前生発間対部者内相方定今回新場金入立開手力学問高代明実関動全目"
    "通外最言現理調体化当題下意法来作性的要用度務気期取機平合話受区進正安設保数記指界点教書活原先共解名交"
    "面文反元重近画利知道信件別物使求所次水品論計感特情示変打基各始直価式確運終果減台広必応演電無再位置真"
    "流格有口過少放検料状工建語空職止送切由説転比難防補車断何違消番規術態導備配算視条独究起着店残想線率質"
    "待試早張限親額追商形落担退準造頭技低復去味失移差個門写評末守若極種命量非核察整段型白深字答製況音申様"
    "識注呼達押青秒閉"
    "이다는에가을의고를하지니기사리은도로어시습요한인자서나대아라정일해수부있것그보들여게까합면동작방법확"
    "스위"
    "านรอกเงมยลวดทสตะปบคหแจพชขใไโำถซ"
)
_RARE = set("ÿþðÐÞŸĸ¬ªºµƒˆ")
_PUNCTUATION = set("“”„‚‘’–—…€°§«»¿¡·•№©®™±²³½¼× \u00ad\u2011、。，？！：；（）「」《》“”・ー～％＋－／")
_SCRIPTS = {"HEBREW": 1.0, "ARABIC": 0.9, "HIRAGANA": 0.9, "KATAKANA": 0.8, "HANGUL": 0.6, "THAI": -0.3, "GREEK": 0.0}
"""What a letter of these is worth that is in no list."""
_SURE = 8
"""By so many letters in their place a reading must be better than the next one to be taken for certain."""
_GOOD = 0.35
_GOOD_SHIFTED = 0.6
"""A telephone number is valid UTF-7 too, but of characters that do not belong together."""
_CASELESS, _ENOUGH = 0.1, 40
"""What it costs a reading if so many letters, of an alphabet that has capitals, hold none."""


def guess(sample: bytes) -> tuple[str, float]:
    """The likeliest encoding and how likely it is, 0 to 1.

    Args:
        sample: Lines of the text that hold bytes beyond ASCII; the last may be cut.
    """
    read: dict[str, tuple[float, str]] = {}
    for name in (*_SINGLE_BYTE, *_MULTI_BYTE):
        text = sample.decode(name, "replace")
        if text not in read:
            read[text] = (_plausibility(text), name)
    ranked = sorted(read.values(), key=lambda each: -each[0])
    best, name = ranked[0]
    if best < _GOOD:
        return _second_opinion(sample) or name, 0.1
    margin = best - (ranked[1][0] if len(ranked) > 1 else 0.0)
    beyond = sum(byte > 0x7F for byte in sample)
    return name, round(min(1.0, margin * beyond / _SURE), 2)


def guess_shifted(sample: bytes, said: str) -> tuple[str, float | None] | None:
    """The encoding of lines that are ASCII and may stand for more, and how likely it is; None: they mean themselves.

    Args:
        sample: Whole lines with what such encodings begin with.
        said: The encoding by the recipe; "": nothing is said.
    """
    for name in _SHIFTED:
        try:
            text = sample.decode(name)
        except UnicodeError:
            continue
        beyond = sum(char > "\x7f" for char in text)
        if beyond and codecs.lookup(name).name == codecs.lookup(said or "utf-8").name:
            return name, None
        if beyond >= _SURE and _plausibility(text) >= _GOOD_SHIFTED:
            return name, 1.0
    return None


def _second_opinion(sample: bytes) -> str | None:
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    return best.encoding if best else None


def _plausibility(text: str) -> float:
    """Mean over the characters beyond ASCII: 1 for letters where letters stand, below 0 for debris."""
    total = 0.0
    count = 0
    letters = Counter(char for char in text if char > "\x7f")
    alphabet = max(_ALPHABETS, key=lambda each: sum(letters[letter] for letter in each))
    before = " "
    following = iter(text[1:] + " ")
    for char in text:
        after = next(following)
        if char > "\x7f":
            count += 1
            total += _of_char(before, char, after, alphabet)
        before = char
    return total / count - _CASELESS * _is_of_one_case(letters) if count else 0.0


def _is_of_one_case(letters: Counter[str]) -> bool:
    """Whether Cyrillic or Greek has no capital, or nothing else: so reads Hebrew, which has letters in their places."""
    capitals = sum(number for letter, number in letters.items() if letter.isupper() and letter > "\u036f")
    small = sum(number for letter, number in letters.items() if letter.islower() and letter > "\u036f")
    return capitals + small >= _ENOUGH and not (capitals and small)


def _of_char(before: str, char: str, after: str, alphabet: set[str]) -> float:
    if char == "\ufffd":
        return -3.0
    if char in _PUNCTUATION:
        within = before.isalpha() and after.isalpha() and before < "\u0250" and after < "\u0250"
        return -1.5 if within and char not in "’‘\u00ad" else 0.5
    if not char.isalpha():
        # Vowels of Thai and Arabic, and the tones of Vietnamese, stand on the letter before.
        return (1.0 if char < "\u0330" else 0.5) if unicodedata.category(char) == "Mn" and before.isalpha() else -1.5
    script = _script(char)
    score = _SCRIPTS.get(script, 0.3)
    if char in alphabet or char in _FREQUENT:
        score = 1.0
    elif char in _RARE or script in ("HALFWIDTH", ""):
        score = -0.8
    for neighbour in (before, after):
        if neighbour.isalpha() and _family(_script(neighbour)) != _family(script):
            score -= 1.0
        elif script == "LATIN" and neighbour > "\x7f" and neighbour.isalpha():
            score -= 0.5  # accents come one at a time
    if (before.islower() and char.isupper()) or (char.islower() and after.isupper()):
        score -= 1.5
    return score


_EAST = ("CJK", "HIRAGANA", "KATAKANA", "FULLWIDTH")
_KNOWN = ("LATIN", "CYRILLIC", "GREEK", "HEBREW", "ARABIC", "THAI", "HANGUL", *_EAST)


@cache
def _script(char: str) -> str:
    first = unicodedata.name(char, "").partition(" ")[0]
    return first if first in (*_KNOWN, "HALFWIDTH") else ""


def _family(script: str) -> str:
    return "CJK" if script in _EAST else script
