"""The tool modules: what a plugin may import besides the root."""

from __future__ import annotations

TOOLS = (
    "dsp",
    "envelope",
    "timeline",
    "wav",
    "websocket",
    "http",
    "httpd",
    "intake",
    "ordered_session",
    "eka",
    "vobiz",
    "answer",
    "callback",
    "control",
    "fellows",
    "carrier",
    "dialects",
    "tls",
    "wire_truth",
    "testing",
)
