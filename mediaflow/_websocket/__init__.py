"""What ``websocket`` is made of; nothing else imports it.

::

    core       a WebSocket: what a connection does with frames, whatever carries its bytes
    opening    the handshakes, by the ``websockets`` library
    endpoint   who listens and accepts, and who connects, on lines of our own
    line       a connection on a socket of our own: ws and wss, on every event loop
    hub        what the lines of one event loop share: its turns and their deadlines
    loop       an event loop that waits in its hub
    tls        TLS between a line and its reader
    acks       how often the kernel acknowledges what a line reads
    stream     a connection over an anyio stream: behind an HTTP listener, and where there is no epoll
"""
