"""Text that is not UTF-8 is read as what it is, or the report says that it is a guess; mojibake passed every check."""

import csv
import io
import time
import unicodedata

import pytest

from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.data.read.encoding import detect_encoding
from phi3_assets_tests.data.running import Run, write_sample

RUSSIAN = "Где находится запасной ключ от шкафа? Он лежит у дежурного в нижнем ящике."
GREEK = "Πού βρίσκεται το κλειδί του ντουλαπιού; Το έχει ο υπεύθυνος στο κάτω συρτάρι."
POLISH = "Gdzie leży zapasowy klucz do szafy? Ma go dyżurny, w dolnej szufladzie, więc zapytaj później."
GERMAN = "Wo ist der Schlüssel für den Schrank? Er hängt über der Tür, gleich daneben, und ist größer."
JAPANESE = "予備の鍵はどこにありますか。当直の人が下の引き出しに入れています。"
CHINESE = "备用钥匙在哪里？值班人员把它放在下面的抽屉里，请先问他。"
TRADITIONAL = "備用鑰匙在哪裡？值班人員把它放在下面的抽屜裡，請先問他。"
KOREAN = "예비 열쇠는 어디에 있습니까? 당직자가 아래 서랍에 보관하고 있습니다."
HEBREW = "איפה נמצא המפתח הרזרבי של הארון? הוא אצל התורן במגירה התחתונה"
TURKISH = "Dolabın yedek anahtarı nerede? Nöbetçi onu alt çekmecede saklıyor, lütfen önce ona sorun, şimdi değil."
ARABIC = "أين يوجد المفتاح الاحتياطي للخزانة؟ هو عند المناوب في الدرج السفلي."
VIETNAMESE = "Chìa khóa dự phòng của tủ ở đâu? Nhân viên trực để nó trong ngăn kéo dưới, hãy hỏi trước."
THAI = "กุญแจสำรองอยู่ที่ไหน พนักงานเวรเก็บไว้ในลิ้นชักล่าง"


def tones_apart(text: str) -> str:
    """As Windows has Vietnamese: vowels whole, and their tones behind them."""
    apart = ""
    for char in unicodedata.normalize("NFD", text):
        whole = unicodedata.normalize("NFC", apart[-1:] + char)
        apart = apart[:-1] + whole if len(whole) == 1 and whole in "âêôăơưÂÊÔĂƠƯ" else apart + char
    return apart


WRITTEN = [
    *((RUSSIAN, name) for name in ("cp1251", "koi8_r", "cp866", "iso8859_5", "mac_cyrillic")),
    *((GREEK, name) for name in ("cp1253", "iso8859_7", "mac_greek")),
    *((POLISH, name) for name in ("cp1250", "iso8859_2", "cp852", "mac_latin2")),
    *((GERMAN, name) for name in ("cp1252", "mac_roman", "cp850")),
    *((JAPANESE, name) for name in ("cp932", "euc_jp")),
    *((CHINESE, name) for name in ("gbk", "gb18030")),
    (TRADITIONAL, "big5"),
    (KOREAN, "euc_kr"),
    (HEBREW, "cp1255"),
    (TURKISH, "cp1254"),
    (THAI, "tis_620"),
    *((ARABIC, name) for name in ("cp1256", "iso8859_6")),
    (tones_apart(VIETNAMESE), "cp1258"),
]


@pytest.mark.parametrize(("text", "encoding"), WRITTEN, ids=[name for _, name in WRITTEN])
def test_what_it_reads_as_is_what_was_written(text, encoding):
    content = f"Question,Best Answer\n{text}\n".encode(encoding)
    found = detect_encoding([content])
    assert content.decode(found.name) == content.decode(encoding)
    assert found.certainty is not None


WIDE = [f"utf-{bits}-{order}" for bits in (16, 32) for order in ("le", "be")]


@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize("text", [GERMAN, RUSSIAN, GREEK, HEBREW, ARABIC, JAPANESE, CHINESE, KOREAN, THAI])
def test_wide_text_needs_no_mark(text, encoding):
    """Outside of Latin half of its bytes are no zeros, and the columns were told to be 'Q', zero, 'u', zero."""
    content = f"Question,Best Answer\n{text},一丁\n".encode(encoding)
    assert detect_encoding([content]) == (encoding, None)


@pytest.mark.parametrize("text", ['"","\0"', "a,\0", "\0,\0\0", "one, two,\0three"])
def test_a_stray_zero_makes_no_wide_text(text):
    assert detect_encoding([f'"Question","Best Answer"\r\n{text}\r\n'.encode()]).name == "utf-8"


SHIFTED = [(JAPANESE, "iso2022_jp"), (KOREAN, "iso2022_kr"), (CHINESE, "hz"), (RUSSIAN, "utf_7"), (GREEK, "utf_7")]


@pytest.mark.parametrize(("text", "encoding"), SHIFTED, ids=[name for _, name in SHIFTED])
def test_text_that_passes_for_ascii_is_found(text, encoding):
    """It was learnt as "+WYJPVWJTXwA-0" and passed every check."""
    content = f"Question,Best Answer\n{text}\n".encode(encoding)
    found = detect_encoding([content])
    assert content.decode(found.name) == content.decode(encoding)
    assert found.certainty is not None


@pytest.mark.parametrize(
    "text",
    [
        "a+b-c, see C++--",
        "~{x} or +abcd-?",
        "sum: +12345-, \x1b$",
        "+4989123456789 or +41 44 668 18 00 or +123456789012-3",
        "base64 +aGVsbG8+d29ybGQ-",
    ],
)
def test_ascii_stays_what_it_is(text):
    assert detect_encoding([f"Question,Best Answer\n{text}\n".encode()]).name == "utf-8"


def test_hebrew_is_certain():
    content = f"{HEBREW}\n".encode("cp1255")
    assert (detect_encoding([content]).certainty or 0) >= 0.5


def rows_in(encoding: str, text: str) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([("Question", "Best Answer"), *((f"{i}: {text}", text) for i in range(30))])
    return out.getvalue().encode(encoding)


def test_mojibake_is_in_no_corpus(tmp_path):
    run = Run(tmp_path)
    for text, encoding in ((GREEK, "cp1253"), (RUSSIAN, "koi8_r"), (CHINESE, "gb18030")):
        (run.data / f"{encoding}.csv").write_bytes(rows_in(encoding, text))
    metrics = run.ingest()
    assert {row["messages"][1]["content"] for row in run.records()} == {GREEK, RUSSIAN, CHINESE}
    assert all(file["encoding_certainty"] > 0 for file in metrics["files"])


def test_the_recipe_can_say_it(tmp_path):
    """Three words are too few to tell by; what is UTF-8 stays so."""
    short = "Ключ?,Да\nЗамок?,Нет\n"
    run = Run(tmp_path, dataset_encoding="mac_cyrillic")
    (run.data / "short.csv").write_bytes(f"Question,Best Answer\n{short}".encode("mac_cyrillic"))
    (run.data / "marked.csv").write_text(f"Question,Best Answer\n{GREEK},1\n", encoding="utf-8")
    write_sample(run.data)
    metrics = run.ingest()
    files = {file["file"]: file for file in metrics["files"]}
    assert (files["short.csv"]["encoding"], files["short.csv"]["encoding_certainty"]) == ("mac_cyrillic", None)
    assert files["marked.csv"]["encoding"] == "utf-8"
    told = {row["messages"][0]["content"] for row in run.records()}
    assert {"Ключ?", "Замок?", GREEK} <= told


@pytest.mark.parametrize("name", ["windows-latin", "hex"])
def test_an_encoding_that_is_none_is_refused(name):
    with pytest.raises(Exception, match="no text encoding that Python knows"):
        load_recipe("tiny-test", {"dataset_encoding": name})


def test_a_guess_that_is_only_a_guess_says_so():
    content = "Café, à côté\n".encode("cp1252")
    assert (detect_encoding([content]).certainty or 0) < 0.5


@pytest.mark.parametrize("part", [b'"Call +49, please" ', b"words and words ", b"+QUJD", b"~x"])
@pytest.mark.parametrize("end", [b"", b"\n", b"\nM\xfcller\n"])
def test_a_line_of_a_megabyte_is_looked_through_once(part, end):
    start = time.process_time()
    detect_encoding([part * ((1 << 20) // len(part)) + end])
    assert time.process_time() - start < 2  # minutes and more, where each letter of it was a beginning anew
