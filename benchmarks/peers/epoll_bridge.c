/* The same bridge in C: one thread, one epoll.  How little it can cost, the kernel's part included.
 *
 *     epoll_bridge EKA_PORT [null]       prints its own port
 *
 * With ``null`` it looks at nothing and answers every media message with 20 ms of silence: as many frames as this
 * passes, the load can produce and check.
 */

#include "sockets.h"
#include <signal.h>
#include <sys/random.h>

enum { ROOM = 1 << 16, MASKS = 4096 };

struct call {
    struct conn carrier, eka;
    int begun;  /* a sample has come */
    int16_t last;
};

static struct sockaddr_in eka = { .sin_family = AF_INET };
static int null;
static int16_t mulaw[256];  /* ITU-T G.711, table 2a */

static const uint8_t *next_mask(void) {
    static uint8_t masks[MASKS];
    static size_t used = MASKS;
    if (used == MASKS && getrandom(masks, used, 0) == MASKS) used = 0;
    return masks + (used += 4) - 4;
}

static void say(struct conn *conn, uint8_t *room, uint8_t opcode, size_t size) {
    size_t whole;
    uint8_t *from = build_frame(room, opcode, size, conn->kind == EKA ? next_mask() : NULL, &whole);
    transmit(conn, from, whole);
}

static void end_call(struct call *call) {
    hang_up(&call->carrier);
    hang_up(&call->eka);
}

static void connect_eka(struct call *call, const uint8_t *text, size_t size) {
    char id[64], path[80], request[512];
    const char *at = memmem(text, size, "\"callId\":\"", 10);
    if (!at || sscanf(at + 10, "%63[^\"]", id) != 1) { end_call(call); return; }
    call->eka = (struct conn){ .kind = EKA, .state = HTTP, .call = call, .fd = socket(AF_INET, SOCK_STREAM, 0) };
    if (connect(call->eka.fd, (void *)&eka, sizeof eka)) fail("connect");
    adopt(&call->eka, NULL);
    watch(&call->eka, EPOLLIN, EPOLL_CTL_ADD);
    snprintf(path, sizeof path, "/%s", id);
    transmit(&call->eka, request, request_upgrade(request, path, ntohs(eka.sin_port)));
    watch(&call->carrier, 0, EPOLL_CTL_MOD);  /* until there is somebody to send to */
}

/* Between two samples stands their mean; the one behind the last comes with the next frame. */
static void media(struct call *call, const uint8_t *payload, size_t size) {
    uint8_t codes[ROOM], room[FRAME_ROOM + 4 * ROOM];
    int16_t *pcm = (int16_t *)(room + FRAME_ROOM);
    size_t n = 0, count;
    if (null) {
        memset(pcm, 0, 640);
        say(&call->eka, room, BINARY, 640);
        return;
    }
    count = decode_base64(payload, size, codes);
    for (size_t i = 0; i < count; i++) {
        int16_t sample = mulaw[codes[i]];
        if (call->begun) pcm[n++] = (call->last + sample) >> 1;
        call->begun = 1;
        pcm[n++] = call->last = sample;
    }
    say(&call->eka, room, BINARY, 2 * n);
}

static void take(struct conn *conn, struct frame *frame) {
    struct call *call = conn->call;
    uint8_t room[FRAME_ROOM + 128];
    size_t length;
    if (frame->opcode == CLOSE) { end_call(call); return; }
    if (conn->kind == EKA || frame->opcode != TEXT) return;
    if (null && frame->size > 300) { media(call, NULL, 0); return; }
    const uint8_t *payload = find_payload(frame->payload, frame->size, &length);
    if (payload && length <= ROOM) media(call, payload, length);
    else if (memmem(frame->payload, frame->size, "\"start\"", 7)) connect_eka(call, frame->payload, frame->size);
    else if (memmem(frame->payload, frame->size, "\"stop\"", 6)) {
        memcpy(room + FRAME_ROOM, "{\"event\":\"stop\"}", 16);
        say(&call->eka, room, TEXT, 16);
    }
}

static void take_head(struct conn *conn, const char *head) {
    char answer[256];
    conn->state = OPEN;
    if (conn->kind == EKA) watch(&conn->call->carrier, EPOLLIN, EPOLL_CTL_MOD);
    else transmit(conn, answer, accept_upgrade(answer, head));
}

static void readable(struct conn *conn) {
    static uint8_t data[2 * ROOM];
    size_t size = conn->left_size, done = 0;
    struct frame frame;
    memcpy(data, conn->left, size);
    ssize_t got = receive(conn, data + size, ROOM);
    if (got < 0) return;
    if (!got || size > ROOM) { end_call(conn->call); return; }
    size += got;
    if (conn->state == HTTP) {
        uint8_t *end = memmem(data, size, "\r\n\r\n", 4);
        if (end) {
            end[3] = 0;
            take_head(conn, (char *)data);
            done = end + 4 - data;
        }
    }
    while (conn->state == OPEN && parse_frame(data + done, size - done, &frame)) {
        take(conn, &frame);
        done += frame.whole;
    }
    if (conn->state == CLOSED) return;
    if (size - done > conn->left_size && !(conn->left = realloc(conn->left, size - done))) fail("memory");
    memcpy(conn->left, data + done, conn->left_size = size - done);
}

int main(int argc, char **argv) {
    static struct conn listener = { .kind = LISTENER };
    struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t here_size = sizeof here;
    struct epoll_event events[256];
    if (argc < 2) return 2;
    null = argc > 2;
    eka.sin_port = htons(atoi(argv[1]));
    eka.sin_addr = here.sin_addr;
    for (int code = 0; code < 256; code++) {
        int inverted = ~code & 255, magnitude = ((((inverted & 15) << 3) + 132) << ((inverted >> 4) & 7)) - 132;
        mulaw[code] = inverted & 128 ? -magnitude : magnitude;
    }
    signal(SIGPIPE, SIG_IGN);
    epoll_fd = epoll_create1(0);
    listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener.fd, (void *)&here, sizeof here) || listen(listener.fd, 4096)) fail("listen");
    getsockname(listener.fd, (void *)&here, &here_size);
    watch(&listener, EPOLLIN, EPOLL_CTL_ADD);
    printf("%d\n", ntohs(here.sin_port));
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, 256, -1), fd;
        for (int i = 0; i < n; i++) {
            struct conn *conn = events[i].data.ptr;
            if (conn->kind != LISTENER) {
                if (conn->state != CLOSED && events[i].events & EPOLLOUT) transmit_unsent(conn);
                if (conn->state != CLOSED && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(conn);
                continue;
            }
            while ((fd = accept(listener.fd, NULL, NULL)) >= 0) {
                struct call *call = calloc(1, sizeof *call);  /* never freed: a run is short */
                if (!call) fail("memory");
                call->carrier = (struct conn){ .fd = fd, .kind = CARRIER, .state = HTTP, .call = call };
                call->eka.state = CLOSED;
                adopt(&call->carrier, NULL);
                watch(&call->carrier, EPOLLIN, EPOLL_CTL_ADD);
            }
        }
    }
}
