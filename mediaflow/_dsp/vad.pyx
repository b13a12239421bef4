"""Find speech in a stream by its energy over the noise.

Each frame of 10 or 20 ms passes four steps, all of them cheap:

1. *Bands.* The energy of a low band (peak at 740 Hz, where voices are strongest and rumble is gone) and
   of a high one (rising towards 4 kHz, where hum is gone and an s is loud), in dB; `vad_kernel.c`
   computes both at about 8 kHz whatever the rate.
2. *Noise.* For each band its mean and spread, in dB. They follow the frames that do not stand out, and
   cannot leave the neighbourhood of the least smoothed level of the last 1.5 seconds: talkers leave a
   gap in any 1.5 seconds, so the minimum is the noise even while somebody speaks, and noise that gets
   louder is taken for noise after 1.5 seconds.
3. *Evidence.* How far a frame stands out of each band's noise, in units of its spread, fills a bucket;
   each frame drains it. That is the forward recursion of a two-state hidden Markov model, in its
   logarithmic form, with the two bends of its curve straightened. The score is what is in the bucket,
   0 to 20; a silent frame empties it.
4. *Decision.* A second bucket differs in that a pause takes most of it, and the louder the talk has
   been lately, the sooner frames that do not stand out are a pause: after 80 ms where words stand 20
   spreads out of the noise, after 400 where they stand 4, for in noise a pause takes long to tell from a
   weak sound. A frame is speech from ``start_db`` in that bucket up, and stays so down to ``stop_db``.

A segment starts after ``min_speech_ms`` of speech frames, once the second bucket has reached 4
more than ``start_db``, for noise gets to ``start_db`` now and then; it ends after ``hangover_ms`` without one.

The constants were searched on one half of a labelled set (benchmarks/vad_set.py: six voices, telephone
band and µ-law, white, pink, babble and hum noise at 20 to 0 dB), the figures told from the other:

    AUC of the score per frame, all noises and ratios pooled        0.981 (webrtcvad 0.779)
    misses at the false alarms of webrtcvad's modes 0, 1, 2, 3      0.18, 0.17, 0.10, 0.08 of its own
    first frame marked after speech sets in, median / 90th of 100   20 / 80 ms
    false alarms with digital silence between words                 0.0 %

A smoothed level of one band over the noise, without a bucket, had an AUC of 0.86 there.
Music is speech to it, and a steady tone is speech for 1.5 seconds. So is noise that sets in after
digital silence, as it does when a line is opened, if it lies above ``silence_dbfs``.

Every step is made of additions, multiplications and divisions in a fixed order, logarithms included,
so a stream gets the same scores on every processor.

Reference for the floor: R. Martin, "Noise power spectral density estimation based on optimal
smoothing and minimum statistics", IEEE Trans. SAP 9 (2001).
"""

cimport cython
from libc.math cimport INFINITY, fabs, frexp
from libc.stdint cimport int16_t, int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from mediaflow._dsp.findings cimport VadResult
from mediaflow._dsp.kernels cimport PAST, mediaflow_band_energies
from mediaflow._dsp.span cimport Span, hold_pcm
from mediaflow._dsp.stage cimport Stage

cdef enum:
    MIN_RATE = 4_000
    MAX_RATE = 384_000
    BAND_RATE = 8_000           # frames are brought down to about this before they are split into bands
    PART_MS = 100               # the floor's memory
    RELEASE_GIL = 1 << 17       # bytes, 8 s at 8 kHz; that takes some 30 us
    MOST = 320                  # sums in a frame: 20 ms at less than twice BAND_RATE
    FIRST_PARTS = 6              # how long FIRST_FLOOR stands in for the noise nobody has heard yet

# dBFS. A stream that begins in the middle of a word has no gap to measure the floor in; until a little
# has passed, what is louder than this is taken for speech all the same.
cdef double FIRST_FLOOR = -35.0

# For frames of 20 ms; shares of a change that is followed in one frame.
cdef double FLOOR_SHARE = 0.455     # of the level whose minima make the floor
cdef double NOISE_SHARE = 0.051     # of a frame's level in the noise's mean and spread
cdef double FLOOR_TO_MEAN = 1.7     # spreads between a floor and the mean that goes with it ...
cdef double BELOW = 0.941           # ... and how many the mean may be off, down and up
cdef double ABOVE = 1.89
cdef double MIN_SPREAD = 0.074      # dB
cdef double MAX_SPREAD = 2.09
cdef double MORE_SPREAD = 0.036
cdef double FIRST_SPREAD = 1.3
cdef double MAX_STEP = 6.0          # dB by which one frame can pull at mean and spread
cdef double DEAF = 0.945            # spreads by which noise stands out of itself
cdef double MAX_STAND = 10          # spreads that count for more no more
cdef double HIGH_WEIGHT = 1.13      # of the high band against the low one
cdef double FILL = 0.811
cdef double DRAIN = 0.208
cdef double DRAIN_LOUD = 0.00324    # more in a frame that does not stand out, for each unit of the loudest lately
cdef double LATELY = 0.998          # share of the loudest frame that is left after one frame
cdef double QUIET = 0.3             # a frame that stands out less than this, or this share of the loudest, ...
cdef double QUIET_SHARE = 0.06
cdef double PAUSE = 1600.0          # ... is a pause after so many ms, divided by the loudest ...
cdef double MIN_PAUSE = 60.0        # ... but not before so many
cdef double AFTER_PAUSE = 1.0       # and what it leaves in the bucket
cdef double BUCKET = 8              # what the bucket holds from frame to frame
cdef double NOISE_BELOW = 8.42      # a frame with a lower score tells about the noise
cdef double BOTTOM = 3.0            # score of an empty bucket: the last drop may take it lower
cdef double MAX_SCORE = 20.0
cdef double SURE = 4.0              # more score than start_db that a segment must reach to begin
cdef double LEAST = 1e-6            # what halves for ever must end before it is a denormal, which is slow


cdef double _decibels(double power) noexcept nogil:
    """Return 10 * log10(power) to 1e-7 by the series of artanh, which the mantissa keeps below 0.172."""
    cdef int exponent
    cdef double mantissa = frexp(power, &exponent)
    if mantissa < 0.7071067811865476:
        mantissa *= 2
        exponent -= 1
    cdef double t = (mantissa - 1) / (mantissa + 1)
    cdef double t2 = t * t
    # 20 / ln 10 and 10 * log10(2)
    return 8.685889638065035 * t * (1 + t2 * (1 / 3.0 + t2 * (1 / 5.0 + t2 / 7.0))) + 3.010299956639812 * exponent


cdef double _share(double share, int milliseconds):
    """Return the share for a frame of other length that comes to the same."""
    return share if milliseconds == 20 else 1 - (1 - share) ** (milliseconds / 20.0)


cdef int _check_range(str name, double value, double low, double high, str unit) except -1:
    if not low <= value <= high:
        raise ValueError(f"{name} must be {low:g} to {high:g}{unit}, not {value:g}")
    return 0


@cython.final
cdef class EnergyVad(Stage):
    """Mark speech in one mono stream at ``rate`` Hz, 4000 to 384000.

    ``frame_ms``        10 or 20; a frame is ``rate * frame_ms // 1000`` samples
    ``start_db``        score from which speech starts, 0.5 to 18
    ``stop_db``         score below which it stops, 0 to ``start_db``
    ``silence_dbfs``    what is quieter is silence whatever the noise, -90 to -20
    ``min_speech_ms``   speech shorter than this is no event, 0 to 1000
    ``hangover_ms``     pauses shorter than this stay inside a segment, 0 to 5000

    Both times are rounded up to whole frames, at least one. In quiet surroundings a speech frame's score
    takes up to 80 ms to fall below ``stop_db``, so by default a pause of 200 ms splits a segment there.

    The stream may be cut into pieces of any length. An object serves one thread at a time. In a `Chain`
    the samples go through unchanged, and `take` returns what was found.
    """

    def __cinit__(
        self,
        rate,
        *,
        frame_ms=20,
        double start_db=5.0,
        double stop_db=4.5,
        double silence_dbfs=-60.0,
        double min_speech_ms=60.0,
        double hangover_ms=100.0,
    ):
        if not isinstance(rate, int) or isinstance(rate, bool):
            raise TypeError(f"rate must be an int, not {type(rate).__name__}")
        if not MIN_RATE <= rate <= MAX_RATE:
            raise ValueError(f"rate must be {MIN_RATE} to {MAX_RATE} Hz, not {rate}")
        if frame_ms not in (10, 20):
            raise ValueError(f"frame_ms must be 10 or 20, not {frame_ms!r}")
        _check_range("start_db", start_db, 0.5, 18, " dB")
        _check_range("stop_db", stop_db, 0, start_db, " dB (start_db)")
        _check_range("silence_dbfs", silence_dbfs, -90, -20, " dBFS")
        _check_range("min_speech_ms", min_speech_ms, 0, 1000, " ms")
        _check_range("hangover_ms", hangover_ms, 0, 5000, " ms")
        cdef int milliseconds = frame_ms
        self.rate = self.rate_in = rate
        self.frame_samples = <int>(<int64_t>self.rate * milliseconds // 1000)
        self._start_db = start_db
        self._stop_db = stop_db
        self._sure_db = min(start_db + SURE, 19.0)
        self._silence_dbfs = silence_dbfs
        self._floor_share = _share(FLOOR_SHARE, milliseconds)
        self._noise_share = _share(NOISE_SHARE, milliseconds)
        self._lately = 1 - _share(1 - LATELY, milliseconds)
        self._fill = FILL * milliseconds / 20
        self._drain = DRAIN * milliseconds / 20
        self._drain_loud = DRAIN_LOUD * milliseconds / 20
        self._milliseconds = milliseconds
        self._min_frames = max(1, <int>-(-min_speech_ms // milliseconds))
        self._hangover_frames = max(1, <int>-(-hangover_ms // milliseconds))
        self._part_frames = PART_MS // milliseconds
        self._step = max(1, self.rate // BAND_RATE)
        self._count = self.frame_samples // self._step
        # So that a full-scale square wave that the band passes best has 0 dB.
        self._scale[0] = 1 / (self._count * (8.0 / 2 * self._step * 32768) ** 2)
        self._scale[1] = 1 / (self._count * (4.0 / 2 * self._step * 32768) ** 2)
        self._pcm = <int16_t *>malloc(self.frame_samples * sizeof(int16_t))
        if self._pcm == NULL:
            raise MemoryError
        self._found = VadResult.__new__(VadResult)
        self._start()

    def __dealloc__(self):
        free(self._pcm)

    cdef void _start(self) noexcept nogil:
        cdef int i, k
        self._filled = self._run = self._gap = self._quiet = self._part = self._part_age = 0
        self._position = self._speech_end = 0
        self._active = self.speaking = False
        self._fresh = True
        self._evidence = self._verdict = self._loudest = 0.0
        for i in range(BANDS):
            self._bands[i].least = INFINITY
            for k in range(PARTS):
                self._bands[i].parts[k] = INFINITY
            # Parts are overwritten in turn, so this one lasts until its turn comes.
            self._bands[i].parts[FIRST_PARTS - 1] = self._bands[i].floor = FIRST_FLOOR
            self._bands[i].spread = FIRST_SPREAD

    cdef double _stand_out(self, Band *band, double level) noexcept nogil:
        """Take a level into the floor, and return by how many spreads it stands out of the noise."""
        cdef double spread, floor
        band.smooth += (level - band.smooth) * self._floor_share
        band.least = min(band.least, band.smooth)
        spread = min(max(band.spread, MIN_SPREAD), MAX_SPREAD) + MORE_SPREAD
        floor = min(band.least, band.floor) + FLOOR_TO_MEAN * spread
        band.mean = min(max(band.mean, floor - BELOW * spread), floor + ABOVE * spread)
        return min(max((level - band.mean) / spread - DEAF, 0.0), MAX_STAND)

    cdef void _learn(self, Band *band, double level) noexcept nogil:
        """Let a frame that is probably noise change what is known of the noise."""
        cdef double step = min(max(level - band.mean, -MAX_STEP), MAX_STEP)
        band.mean += self._noise_share * step
        band.spread = max(band.spread + self._noise_share * (1.25 * fabs(step) - band.spread), LEAST)

    cdef void _end_part(self) noexcept nogil:
        cdef int i, k
        cdef Band *band
        for i in range(BANDS):
            band = &self._bands[i]
            band.parts[self._part] = band.least
            band.least = band.floor = INFINITY
            for k in range(PARTS):
                band.floor = min(band.floor, band.parts[k])
        self._part = (self._part + 1) % PARTS
        self._part_age = 0

    cdef double _score(self, const char *frame) noexcept nogil:
        """Take in a frame and return its score."""
        cdef float energies[BANDS]
        cdef float work[PAST + MOST]
        cdef double levels[BANDS]
        cdef double fill, change
        cdef int i
        memcpy(work, self._past, sizeof(self._past))
        mediaflow_band_energies(frame, self._step, self._count, work, &energies[0], &energies[1])
        memcpy(self._past, work, sizeof(self._past))
        for i in range(BANDS):
            levels[i] = self._silence_dbfs
            if energies[i] > 0:
                levels[i] = max(levels[i], _decibels(energies[i] * self._scale[i]))
            if self._fresh:
                self._bands[i].smooth = levels[i]
                self._bands[i].mean = min(levels[i], FIRST_FLOOR)
        self._fresh = False
        fill = self._stand_out(&self._bands[0], levels[0]) + HIGH_WEIGHT * self._stand_out(&self._bands[1], levels[1])
        self._part_age += 1
        if self._part_age == self._part_frames:
            self._end_part()
        self._loudest = max(fill, self._loudest * self._lately, LEAST)
        self._quiet = self._quiet + 1 if fill < max(QUIET, QUIET_SHARE * self._loudest) else 0
        change = self._fill * fill - self._drain
        if fill < QUIET:
            change -= self._drain_loud * self._loudest
        self._evidence = min(max(self._evidence, 0.0), BUCKET) + change
        self._verdict = min(max(self._verdict, 0.0), BUCKET) + change
        if self._pause():
            self._verdict = min(self._verdict, AFTER_PAUSE)
        if self._evidence < NOISE_BELOW:
            for i in range(BANDS):
                self._learn(&self._bands[i], levels[i])
        if levels[0] <= self._silence_dbfs and levels[1] <= self._silence_dbfs:
            self._evidence = self._verdict = -BOTTOM
        return min(max(self._evidence + BOTTOM, 0.0), MAX_SCORE)

    cdef bint _pause(self) noexcept nogil:
        """Tell whether the talk has stopped for longer than a talker does inside a word."""
        cdef double quiet = self._quiet * self._milliseconds
        return quiet >= MIN_PAUSE and quiet * self._loudest >= PAUSE

    cdef int _judge(self, const char *frame, VadResult result) except -1 nogil:
        """Decide on a frame and begin the next."""
        cdef double score = self._score(frame)
        cdef int64_t end = self._position + self.frame_samples
        self._active = self._verdict + BOTTOM >= (self._stop_db if self._active else self._start_db)
        result.add_verdict(score, self._active)
        if self._active:
            self._run += 1
            self._gap = 0
            self._speech_end = end
            if not self.speaking and self._run >= self._min_frames and self._verdict + BOTTOM >= self._sure_db:
                self.speaking = True
                result.add_mark(True, end - <int64_t>self._min_frames * self.frame_samples)
        else:
            self._run = 0
            self._gap += 1
            if self.speaking and self._gap >= self._hangover_frames:
                self.speaking = False
                result.add_mark(False, self._speech_end)
        self._position = end
        return 0

    cdef int _take_in(self, const Span *source, VadResult result) except -1 nogil:
        """Decide on each frame that the samples complete."""
        cdef const int16_t *samples = <const int16_t *>source.start
        cdef Py_ssize_t left = source.size // 2
        cdef int i, size
        if left and self._position == 0 and self._filled == 0:
            # Before the stream there was more of the same; silence would make a step of any offset.
            for i in range(PAST):
                self._past[i] = <float>(self._step * samples[0])
        while left:
            if self._filled == 0 and left >= self.frame_samples:
                size = self.frame_samples
                self._judge(<const char *>samples, result)
            else:
                size = <int>min(left, self.frame_samples - self._filled)
                memcpy(self._pcm + self._filled, samples, size * sizeof(int16_t))
                self._filled += size
                if self._filled == self.frame_samples:
                    self._filled = 0
                    self._judge(<const char *>self._pcm, result)
            samples += size
            left -= size
        return 0

    cdef int _end(self, VadResult result) except -1 nogil:
        """End speech that is still going on, and begin anew."""
        if self.speaking:
            result.add_mark(False, self._speech_end)
        self._start()
        return 0

    def process(self, pcm) -> VadResult:
        """Take in samples and return what is known about each frame that they complete.

        ``pcm`` is ``bytes`` or a one-dimensional C-contiguous buffer of bytes or int16. Raises
        ``TypeError`` for other items and ``ValueError`` for half a sample.
        """
        cdef Span source
        cdef object _held = hold_pcm(pcm, "pcm", &source)
        cdef VadResult result = VadResult.__new__(VadResult)
        if source.size > RELEASE_GIL:
            with nogil:
                self._take_in(&source, result)
        else:
            self._take_in(&source, result)
        return result

    def flush(self) -> VadResult:
        """End the stream: speech still going on ends with its last speech frame; be ready for another.

        A last piece shorter than a frame gets no decision.
        """
        cdef VadResult result = VadResult.__new__(VadResult)
        self._end(result)
        return result

    def reset(self) -> None:
        """Forget the stream, as if newly made."""
        self._start()

    def take(self) -> VadResult:
        """Return what was found in a `Chain` since the last call."""
        cdef VadResult found = self._found
        self._found = VadResult.__new__(VadResult)
        return found

    @property
    def floor_dbfs(self) -> float:
        """The noise in the speech band now, in dBFS; hardly less than ``silence_dbfs``."""
        return max(self._bands[0].mean, self._silence_dbfs)

    cdef int feed(self, Span *data) except -1 nogil:
        return self._take_in(data, self._found)

    cdef int finish(self, Span *data) except -1 nogil:
        return self._end(self._found)

    cdef void restart(self) noexcept nogil:
        self._start()

    cdef bint news(self) noexcept nogil:
        return self._found.keep_marks()
