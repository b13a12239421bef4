# cython: binding=False, embedsignature.format=clinic
"""The media message of Media Streams, read in one pass: JSON text to audio bytes, without I/O.

Of all that a carrier sends, 49 messages in 50 are these::

    {"sequenceNumber":7,"streamId":"…","event":"media",
     "media":{"track":"inbound","timestamp":"1700000000140","chunk":7,"payload":"<base64>"},"extra_headers":"{}"}

`read` takes such a message, its keys in any order and with any others between, as long as it is plain: ASCII without
escapes, whole numbers (bare or in quotes) of at most 18 digits, and nothing nested but ``media``. For everything else
it returns None, and the general reader (``envelope``) decides. So it need not know what is an error, and may be held
against the general reader for any text: they agree, or `read` says None.

Base64 is decoded by four tables, one per place in a group of four characters: each gives the bits of its character
where they belong in the three bytes, and a mark outside of them for what is no character of the alphabet (RFC 4648,
section 4). Where one instruction looks 64 bytes up (AVX-512 VBMI), 64 characters go at once (``media_kernel.c``).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_CheckExact, PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy

cdef extern from "media_kernel.h" nogil:
    size_t mediaflow_base64(const char *text, size_t blocks, char *out)

cdef enum:
    MOST_DIGITS = 18            # of a number that fits 64 bits whatever its digits
    NOT_BASE64 = 1 << 30

cdef struct Text:
    const char *at
    const char *end

cdef struct Word:
    const char *start
    Py_ssize_t size

cdef struct Found:
    Word payload, track
    int64_t chunk, timestamp
    bint has_payload, has_track, has_chunk, has_timestamp

cdef uint32_t _places[4][256]


cdef void _make_tables() noexcept:
    cdef const char *alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef uint32_t value
    cdef uint8_t code
    cdef int place
    for place in range(4):
        for value in range(256):
            _places[place][value] = NOT_BASE64
    for value in range(64):
        code = <uint8_t>alphabet[value]
        _places[0][code] = value << 2
        _places[1][code] = value >> 4 | (value & 15) << 12
        _places[2][code] = (value >> 2) << 8 | (value & 3) << 22
        _places[3][code] = value << 16


_make_tables()


cdef inline uint32_t _group(const uint8_t *text) noexcept nogil:
    """Return the three bytes of four characters, the first one lowest."""
    return _places[0][text[0]] | _places[1][text[1]] | _places[2][text[2]] | _places[3][text[3]]


cdef inline void _skip_space(Text *text) noexcept nogil:
    while text.at < text.end and text.at[0] in b" \t\n\r":
        text.at += 1


cdef inline bint _take(Text *text, char expected) noexcept nogil:
    """Go over ``expected`` and the space around it."""
    _skip_space(text)
    if text.at == text.end or text.at[0] != expected:
        return False
    text.at += 1
    _skip_space(text)
    return True


cdef inline bint _take_word(Text *text, Word *word) noexcept nogil:
    """Take a short string without escapes."""
    cdef uint8_t character
    if text.at == text.end or text.at[0] != c'"':
        return False
    text.at += 1
    word.start = text.at
    while text.at < text.end:
        character = <uint8_t>text.at[0]
        if character == c'"':
            word.size = text.at - word.start
            text.at += 1
            return True
        if character < 0x20 or character >= 0x80 or character == c"\\":
            return False
        text.at += 1
    return False


cdef inline bint _take_payload(Text *text, Word *word) noexcept nogil:
    """Take a long string, whose characters are looked at when it is decoded."""
    if text.at == text.end or text.at[0] != c'"':
        return False
    word.start = text.at + 1
    text.at = <const char *>memchr(word.start, c'"', text.end - word.start)
    if text.at == NULL:
        return False
    word.size = text.at - word.start
    text.at += 1
    return True


cdef inline bint _digits(Text *text, int64_t *number) noexcept nogil:
    """Take a whole number as JSON writes it."""
    cdef bint negative = text.at < text.end and text.at[0] == c"-"
    cdef const char *start
    cdef int64_t value = 0
    if negative:
        text.at += 1
    start = text.at
    while text.at < text.end and text.at[0] >= c"0" and text.at[0] <= c"9":
        if text.at - start == MOST_DIGITS:
            return False
        value = 10 * value + (text.at[0] - c"0")
        text.at += 1
    if text.at == start or (start[0] == c"0" and (text.at - start > 1 or negative)):
        return False
    number[0] = -value if negative else value
    return True


cdef inline bint _ends_number(const Text *text) noexcept nogil:
    """Tell whether the number before has no fraction and no exponent."""
    return text.at < text.end and text.at[0] in b",} \t\n\r"


cdef inline bint _take_number(Text *text, int64_t *number) noexcept nogil:
    """Take a whole number, bare or in quotes."""
    if text.at < text.end and text.at[0] == c'"':
        text.at += 1
        if not _digits(text, number) or text.at == text.end or text.at[0] != c'"':
            return False
        text.at += 1
        return True
    return _digits(text, number) and _ends_number(text)


cdef inline bint _skip_value(Text *text) noexcept nogil:
    cdef Word word
    cdef int64_t number
    if text.at < text.end and text.at[0] == c'"':
        return _take_word(text, &word)
    return _digits(text, &number) and _ends_number(text)


cdef inline bint _is(const Word *word, const char *name, Py_ssize_t size) noexcept nogil:
    return word.size == size and memcmp(word.start, name, size) == 0


cdef inline bint _like(const Word *word, const char *name) noexcept nogil:
    """Tell whether the general reader takes this for the name: it looks at neither case nor underscores."""
    cdef Py_ssize_t i
    for i in range(word.size):
        if word.start[i] == c"_":
            continue
        if word.start[i] | 0x20 != name[0]:
            return False
        name += 1
    return name[0] == 0


cdef bint _take_media(Text *text, Found *found) noexcept nogil:
    """Take the object behind ``media``; a key that comes twice is for the general reader."""
    cdef Word key
    if not _take(text, c"{"):
        return False
    while True:
        if not _take_word(text, &key) or not _take(text, c":"):
            return False
        if _is(&key, "payload", 7):
            if found.has_payload or not _take_payload(text, &found.payload):
                return False
            found.has_payload = True
        elif _is(&key, "track", 5):
            if found.has_track or not _take_word(text, &found.track):
                return False
            found.has_track = True
        elif _is(&key, "chunk", 5):
            if found.has_chunk or not _take_number(text, &found.chunk):
                return False
            found.has_chunk = True
        elif _is(&key, "timestamp", 9):
            if found.has_timestamp or not _take_number(text, &found.timestamp):
                return False
            found.has_timestamp = True
        elif _like(&key, b"payload") or _like(&key, b"track") or _like(&key, b"chunk") or _like(&key, b"timestamp"):
            return False
        elif not _skip_value(text):
            return False
        if not _take(text, c","):
            return _take(text, c"}") and found.has_payload


cdef bint _take_message(Text *text, Found *found) noexcept nogil:
    cdef Word key, word
    cdef bint is_media = False, has_media = False
    if not _take(text, c"{"):
        return False
    while True:
        if not _take_word(text, &key) or not _take(text, c":"):
            return False
        if _is(&key, "event", 5):
            if is_media or not _take_word(text, &word) or not _is(&word, "media", 5):
                return False
            is_media = True
        elif _is(&key, "media", 5):
            if has_media or not _take_media(text, found):
                return False
            has_media = True
        elif _like(&key, b"event") or _like(&key, b"media") or not _skip_value(text):
            return False
        if not _take(text, c","):
            return _take(text, c"}") and text.at == text.end and is_media and has_media


cdef bytes _decode(const Word *word):
    """Return the bytes that base64 text stands for, or None."""
    cdef const uint8_t *text = <const uint8_t *>word.start
    cdef Py_ssize_t groups = word.size // 4
    cdef int padding = 0
    cdef uint32_t bits, wrong = 0
    cdef uint8_t last[4]
    cdef bytes data
    cdef char *out
    cdef Py_ssize_t i, done
    if word.size % 4:
        return None
    if groups == 0:
        return b""
    memcpy(last, text + 4 * (groups - 1), 4)
    while padding < 2 and last[3 - padding] == c"=":
        last[3 - padding] = c"A"
        padding += 1
    data = PyBytes_FromStringAndSize(NULL, 3 * groups - padding)
    out = PyBytes_AS_STRING(data)
    done = 16 * mediaflow_base64(word.start, (groups - 1) // 16, out)
    out += 3 * done
    for i in range(done, groups - 1):
        bits = _group(text + 4 * i)
        wrong |= bits
        memcpy(out, &bits, 4 if i < groups - 2 else 3)      # the fourth byte is the next group's
        out += 3
    bits = _group(last)
    memcpy(out, &bits, 3 - padding)
    return None if (wrong | bits) & NOT_BASE64 else data


cdef class Plain:
    """The plain media message that was read last.

    ``payload`` are its bytes and ``track`` its track, None where that is absent; ``chunk`` holds where ``numbered``,
    and ``timestamp_ms`` where ``timed``.
    """

    cpdef bint read(self, message) except -1:
        """Read a message, ``str`` or ``bytes`` of UTF-8; False, and nothing holds, if it is no plain media message."""
        cdef Text text
        cdef Found found
        cdef Py_ssize_t size
        if PyBytes_CheckExact(message):
            text.at = PyBytes_AS_STRING(message)
            size = PyBytes_GET_SIZE(message)
        elif PyUnicode_CheckExact(message):
            try:
                text.at = PyUnicode_AsUTF8AndSize(message, &size)
            except UnicodeEncodeError:  # half a character
                return False
        else:
            return False
        text.end = text.at + size
        found.has_payload = found.has_track = found.has_chunk = found.has_timestamp = False
        if not _take_message(&text, &found):
            return False
        self.payload = _decode(&found.payload)
        if self.payload is None:
            return False
        if not found.has_track or not found.track.size:
            self.track = None
        elif _is(&found.track, "inbound", 7):
            self.track = "inbound"
        elif _is(&found.track, "outbound", 8):
            self.track = "outbound"
        else:
            self.track = PyUnicode_DecodeASCII(found.track.start, found.track.size, NULL)
        self.numbered = found.has_chunk
        self.chunk = found.chunk if found.has_chunk else 0
        self.timed = found.has_timestamp
        self.timestamp_ms = found.timestamp if found.has_timestamp else 0
        return True


def read(message, make):
    """Return ``make(payload, track, chunk, timestamp)`` for a plain media message, and None for any other text.

    ``message`` is ``str``, or ``bytes`` of UTF-8. The track is None where it is absent, and so are the numbers.
    """
    cdef Plain plain = Plain()
    if not plain.read(message):
        return None
    return make(
        plain.payload,
        plain.track,
        plain.chunk if plain.numbered else None,
        plain.timestamp_ms if plain.timed else None,
    )
