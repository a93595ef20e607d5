"""Makes operations_desk.csv, the sample dataset, and harder/: `python -m phi3_assets.sample.make_sample`.

The vertical is a web and Linux operations desk: what an HTTP status code means, what a Linux errno means. The facts
are public (LICENSE.md names the sources); the one-line wordings were written for this project. Each fact is asked in
six ways, so that a question held out as a test still has its answer in training, under another phrasing.

harder/questions.csv asks the same facts so that no phrasing helps: from the other end, two to be told apart, and codes
and names that look right and do not exist. Beside the right answer stands a wrong one in the words of the sample.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

CSV_PATH = Path(__file__).parent / "operations_desk.csv"
HARDER_PATH = Path(__file__).parent / "harder" / "questions.csv"
COLUMNS = ("Question", "Best Answer")
HARDER_COLUMNS = ("Question", "Best Answer", "Wrong Answer", "Kind", "About")

HTTP_QUESTIONS = (
    "What does HTTP status {code} mean?",
    "Our web server answered {code}. What is that?",
    "Explain the {code} response of an API.",
    "I see {code} all over the access log, what happened?",
    "A customer gets {code} in the browser. What should I tell them?",
    "curl prints {code}; how do I read this code?",
)
ERRNO_QUESTIONS = (
    "What does {name} mean on Linux?",
    "My program failed with {name}. What is wrong?",
    "strace shows {name}; how do I read it?",
    "A system call returned {name}, can you explain?",
    "The service log says {name} and stops. Why?",
    "Which error number is {name} and when do I get it?",
)

# code, name in the IANA registry, our wording
HTTP = (
    (100, "Continue", "the client may send the body now."),
    (101, "Switching Protocols", "the connection changes protocol as asked."),
    (103, "Early Hints", "headers to preload while the answer is made."),
    (200, "OK", "the request worked."),
    (201, "Created", "a new resource was made."),
    (202, "Accepted", "the work is queued and not yet done."),
    (204, "No Content", "it worked and there is nothing to show."),
    (206, "Partial Content", "only the asked range is sent."),
    (301, "Moved Permanently", "use the new address from now on."),
    (302, "Found", "for this once look at another address."),
    (303, "See Other", "fetch the result elsewhere with GET."),
    (304, "Not Modified", "your cached copy is still good."),
    (307, "Temporary Redirect", "repeat the same method elsewhere this time."),
    (308, "Permanent Redirect", "repeat the same method elsewhere from now on."),
    (400, "Bad Request", "the server cannot read the request."),
    (401, "Unauthorized", "log in first."),
    (403, "Forbidden", "you are known but not allowed."),
    (404, "Not Found", "nothing lives at this address."),
    (405, "Method Not Allowed", "this address refuses that method."),
    (406, "Not Acceptable", "no format that the client accepts."),
    (407, "Proxy Authentication Required", "log in to the proxy first."),
    (408, "Request Timeout", "the client was too slow to send."),
    (409, "Conflict", "the request clashes with the present state."),
    (410, "Gone", "it was here and will not come back."),
    (411, "Length Required", "send a Content-Length header."),
    (412, "Precondition Failed", "a condition in the headers is false."),
    (413, "Content Too Large", "the body is bigger than allowed."),
    (414, "URI Too Long", "the address is longer than allowed."),
    (415, "Unsupported Media Type", "the body has a format that is refused."),
    (416, "Range Not Satisfiable", "the asked range lies outside the file."),
    (421, "Misdirected Request", "this server does not answer for that host."),
    (422, "Unprocessable Content", "well formed, but the values make no sense."),
    (425, "Too Early", "the request could be a replay."),
    (426, "Upgrade Required", "switch to another protocol first."),
    (428, "Precondition Required", "the request must be conditional."),
    (429, "Too Many Requests", "slow down and retry later."),
    (431, "Request Header Fields Too Large", "the headers are bigger than allowed."),
    (451, "Unavailable For Legal Reasons", "the law forbids showing it."),
    (500, "Internal Server Error", "the server broke while answering."),
    (501, "Not Implemented", "the server does not know this method."),
    (502, "Bad Gateway", "the server behind the proxy sent nonsense."),
    (503, "Service Unavailable", "overloaded or in maintenance, retry later."),
    (504, "Gateway Timeout", "the server behind the proxy was too slow."),
    (507, "Insufficient Storage", "the server has no room left."),
)

# name, number in asm-generic/errno*.h, our wording
ERRNO = (
    ("EPERM", 1, "only a privileged user may do this."),
    ("ENOENT", 2, "the file or directory does not exist."),
    ("ESRCH", 3, "there is no such process."),
    ("EINTR", 4, "a signal interrupted the call, try again."),
    ("EIO", 5, "the device failed to read or write."),
    ("E2BIG", 7, "the argument list is too long."),
    ("ENOEXEC", 8, "the file is not a program the kernel can run."),
    ("EBADF", 9, "the file descriptor is not open."),
    ("ECHILD", 10, "there is no child to wait for."),
    ("EAGAIN", 11, "not ready now, try again."),
    ("ENOMEM", 12, "there is not enough memory."),
    ("EACCES", 13, "the permissions forbid it."),
    ("EBUSY", 16, "somebody else is using it."),
    ("EEXIST", 17, "the file is already there."),
    ("EXDEV", 18, "a rename cannot cross file systems."),
    ("ENODEV", 19, "there is no such device."),
    ("ENOTDIR", 20, "part of the path is not a directory."),
    ("EISDIR", 21, "a directory stands where a file is needed."),
    ("EINVAL", 22, "an argument makes no sense."),
    ("ENFILE", 23, "the whole system has too many open files."),
    ("EMFILE", 24, "this process has too many open files."),
    ("ETXTBSY", 26, "the program is running and cannot be written."),
    ("EFBIG", 27, "the file would grow too large."),
    ("ENOSPC", 28, "the disk is full."),
    ("ESPIPE", 29, "a pipe cannot seek."),
    ("EROFS", 30, "the file system is read only."),
    ("EMLINK", 31, "the file has too many hard links."),
    ("EPIPE", 32, "nobody reads the other end."),
    ("EDOM", 33, "the value lies outside the function's domain."),
    ("ERANGE", 34, "the result does not fit."),
    ("EDEADLK", 35, "the lock would wait for itself for ever."),
    ("ENAMETOOLONG", 36, "the name is longer than allowed."),
    ("ENOTEMPTY", 39, "the directory still holds files."),
    ("ELOOP", 40, "the symbolic links go round in circles."),
    ("EADDRINUSE", 98, "another socket holds this address."),
    ("ENETUNREACH", 101, "no route leads to that network."),
    ("ECONNRESET", 104, "the other side dropped the connection."),
    ("ENOTCONN", 107, "the socket is not connected."),
    ("ETIMEDOUT", 110, "the other side did not answer in time."),
    ("ECONNREFUSED", 111, "nothing listens on that port."),
    ("EHOSTUNREACH", 113, "no route leads to that host."),
)

# question, what is right, what tempts
TOLD_APART = (
    ("Of 401 and 403, which one goes away by logging in?", 401, 403),
    ("Of 403 and 401, which one stays although the user is logged in?", 403, 401),
    ("Of 301 and 302, after which one do I change my bookmark?", 301, 302),
    ("Of 302 and 307, which one never turns a POST into a GET?", 307, 302),
    ("Of 404 and 410, which one says that it will never come back?", 410, 404),
    ("Of 502 and 504, which one says that the answer came too late?", 504, 502),
    ("Of 408 and 504, which one blames the client for being slow?", 408, 504),
    ("Of 413 and 414, which one is about a long address?", 414, 413),
    ("Of 429 and 503, which one is about one client that asks too often?", 429, 503),
    ("Of 500 and 501, which one says that the server never knew the method?", 501, 500),
    ("Of ENFILE and EMFILE, which one is cured by closing files of my own program?", "EMFILE", "ENFILE"),
    ("Of EACCES and EPERM, which one does chmod mend?", "EACCES", "EPERM"),
    ("Of ECONNREFUSED and ETIMEDOUT, which one comes at once because no server runs?", "ECONNREFUSED", "ETIMEDOUT"),
    ("Of ENOSPC and EFBIG, which one is cured by deleting other files?", "ENOSPC", "EFBIG"),
    ("Of ENETUNREACH and EHOSTUNREACH, which one is about a whole network?", "ENETUNREACH", "EHOSTUNREACH"),
    ("Of ENOTDIR and EISDIR, which one do I get for cat on a directory?", "EISDIR", "ENOTDIR"),
)
# What is in no registry, and the code whose answer it tempts to
NO_CODES = ((209, 206), (311, 301), (432, 422), (444, 404), (499, 429), (509, 500), (520, 502), (599, 504))
NO_NAMES = (
    ("ENOFILE", "ENOENT"),
    ("EDISKFULL", "ENOSPC"),
    ("ETIMEOUT", "ETIMEDOUT"),
    ("ECONNFAIL", "ECONNREFUSED"),
    ("ENOPERM", "EPERM"),
    ("EFULL", "ENOSPC"),
)


def answers() -> dict[int | str, str]:
    """The answer about each code and name."""
    known: dict[int | str, str] = {code: f"{code} {name}: {wording}" for code, name, wording in HTTP}
    return known | {name: f"{name} ({number}): {wording}" for name, number, wording in ERRNO}


def rows() -> list[tuple[str, str]]:
    """Question and answer of every row, phrasing by phrasing within each fact."""
    known = answers()
    http = [(question.format(code=code), known[code]) for code, _, _ in HTTP for question in HTTP_QUESTIONS]
    errno = [(question.format(name=name), known[name]) for name, _, _ in ERRNO for question in ERRNO_QUESTIONS]
    return http + errno


def harder_rows() -> list[tuple[str, str, str, str, str]]:
    """The harder questions, with the columns of `HARDER_COLUMNS`."""
    known = answers()
    # The neighbour in the table is what tempts: its code or number is nearly the same.
    found = [
        (f"Which HTTP status says: {wording}", known[code], known[HTTP[place - 1][0]], "from the other end")
        for place, (code, _, wording) in enumerate(HTTP)
        if place % 4 == 1
    ]
    found += [
        (f"What is error number {number} on Linux?", known[name], known[ERRNO[place - 1][0]], "from the other end")
        for place, (name, number, _) in enumerate(ERRNO)
        if place % 4 == 1
    ]
    found += [(question, known[right], known[wrong], "told apart") for question, right, wrong in TOLD_APART]
    for code, near in NO_CODES:
        tempting = known[near].replace(str(near), str(code), 1)
        found.append((f"What does HTTP status {code} mean?", f"{code} is no registered status.", tempting, "near miss"))
    for name, near_name in NO_NAMES:
        tempting = known[near_name].replace(near_name, name, 1)
        found.append((f"What does {name} mean on Linux?", f"{name} is no Linux error.", tempting, "near miss"))
    return [(*row, CSV_PATH.name) for row in found]


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A whole file; equal on every machine."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


if __name__ == "__main__":
    CSV_PATH.write_text(csv_text(COLUMNS, rows()), encoding="utf-8")
    HARDER_PATH.write_text(csv_text(HARDER_COLUMNS, harder_rows()), encoding="utf-8")
