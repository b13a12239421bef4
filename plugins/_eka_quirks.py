"""What ``eka_ingest`` can be told to do wrong, so that a client's ways out can be rehearsed.

    quirk                what the service does                                      what our sinks say
    streaming_disabled   refuses sessions for streams, as an installation of one's  ``session-refused``
                         own may
    forgets_stream       knows no stream: accepts it and closes 4000                ``stream-unknown``
    drops_stream         closes 1011 after ``DROP_S`` of audio, unless the session  nothing: it goes on in another
                         ``continues`` another one                                  session, and books the loss
    never_closes         leaves the stream open behind stop                         ``not-closed``
    slow_storing         reads nothing for ``STORE_S`` at every ``CHUNK_S``         nothing: it arrives later
    short_sessions       says that a session may last ``SHORT_S``, and takes        nothing: they go on in another
                         nothing that comes after so much                           session
    loses_chunks         answers 200 to every second chunk and has not stored it    ``chunks-missing``
    error_bursts         answers 503 to every request ``BURST`` times before it     nothing: it is asked again
                         serves it
    token_ends           answers 401 once after the first audio, and forgets the    nothing: they log in again; with a
                         tokens of its logins                                       fixed token ``login-refused``
    refuses_end          does not know the session when it is ended                 ``end-refused``
    loses_end            answers 202 to the first end and forgets it                nothing: it is ended again
    result_never         is processing for ever                                     ``result-timeout``
    result_failed        says failed, with 200                                      ``result-failed``
    result_partial       says partial, with 206                                     nothing: the outcome is partial
    result_expired       says 410                                                   ``result-expired``
    result_missing       says 404                                                   ``result-missing``

What the published service does anyway needs no switch: a ``sampleRate`` that is no integer is ignored, base64 that is
none ends the stream, a stream that is used again is closed with 4000, a session that nobody ends is ``initialized`` for
ever.
"""

from __future__ import annotations

from typing import Literal

Quirk = Literal[
    "streaming_disabled",
    "forgets_stream",
    "drops_stream",
    "never_closes",
    "slow_storing",
    "short_sessions",
    "loses_chunks",
    "error_bursts",
    "token_ends",
    "refuses_end",
    "loses_end",
    "result_never",
    "result_failed",
    "result_partial",
    "result_expired",
    "result_missing",
]

DROP_S = 2.0

CHUNK_S, STORE_S = 10.0, 5.0
"""The published server encodes and uploads a chunk of 10 s or more while it reads nothing; 5 s is a slow store."""

SHORT_S = 3.0
"""What it says instead of ten minutes or an hour."""

BURST = 2
