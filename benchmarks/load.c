/* Carriers that play calls, and an EkaScribe that checks them: one thread, one epoll, both ends of every call.
 *
 *     load MEDIA BLOCKS OPTION=VALUE...
 *
 *   carrier ──Media Streams──▶ the bridge under test ──PCM──▶ EkaScribe
 *      └─────────────────── both are this program ──────────────┘
 *
 * MEDIA holds base64 texts of equal length, one per 20 ms (``media_length``); BLOCKS holds what must come of each, as
 * judge.h wants it.  Frame n of call c is text (1031 c + n) mod the number of texts; with ``tracks=2`` the other track
 * plays the text half the pool away.
 *
 * Commands come on standard input, a line each; each is answered by a line of JSON.
 *
 *     open PORT PATH CALLS       connect until CALLS calls are through to EkaScribe
 *     paced SECONDS              50 frames a second in each call, evenly spread over the 20 ms
 *     saturated SECONDS          the next frame of a call as soon as the message of its last has come
 *     stop                       say stop in every call, wait for the end of EkaScribe's sockets, count what is missing
 *
 * Paced, it looks for messages without a pause: a peer that has to be woken for each is a cost of having both ends on one
 * machine, which a network does not have.  Saturated, it sleeps and finds many at once, or it would be what is slow.
 *
 * A message's latency runs from the sending of the newest frame that is in it, a frame's delay from its own sending: that
 * has the time in it for which the message was filled.  ``held`` samples more than those in the message must have been
 * sent for it, because a resampler waits for them; the filter's own delay is no latency.
 */

#include "judge.h"
#include "sockets.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { FRAME_NS = 20000000, MOST_CALLS = 16384, AT_ONCE = 16, RING = 512 };
enum { READ_SIZE = 1 << 18, MESSAGE_ROOM = 4096 };

struct call {
    struct conn carrier, *eka;
    struct heard heard;
    unsigned id;
    uint8_t mask[4];
    int64_t phase;
    uint32_t sent, acked;  /* frames; acked: newest one that a message has come for */
    int64_t sent_at[RING];
    int ended;
};

static struct { size_t media_length, held, window, tracks, slack; char encoding[32], cert[512], key[512]; }
option = { 216, 0, 1, 1, 0, "audio/x-mulaw", "", "" };
static const char *media;
static struct call *calls[MOST_CALLS];
static unsigned call_count, connected, ended, next_id;
static struct sockaddr_in bridge = { .sin_family = AF_INET };
static char bridge_path[256];
static SSL_CTX *as_client, *as_server;
static int saturating;
static float *latencies, *delays, *lateness;
static size_t latency_count, latency_room, delay_count, delay_room, late_count, late_room;

static void note(float **list, size_t *count, size_t *room, int64_t ns) {
    if (*count == *room) {
        *room = *room ? 2 * *room : 1 << 16;
        if (!(*list = realloc(*list, sizeof **list * *room))) fail("memory");
    }
    (*list)[(*count)++] = ns / 1000.0f;
}

static void closed(struct conn *conn) {
    if (conn->state != CLOSED && conn->kind == EKA && conn->call && !conn->call->ended) {
        conn->call->ended = 1;
        ended++;
    }
    hang_up(conn);
}

static void say(struct conn *conn, uint8_t opcode, const void *text, size_t size) {
    uint8_t room[MESSAGE_ROOM];
    size_t length;
    memcpy(room + FRAME_ROOM, text, size);
    uint8_t *from = build_frame(room, opcode, size, conn->kind == CARRIER ? conn->call->mask : NULL, &length);
    transmit(conn, from, length);
}

/* Have the kernel acknowledge what comes when we read it, whatever bridge it comes from. A socket that has answered
 * counts as a conversation until 40 ms were once without audio. As long as it does, every second segment is acknowledged
 * as it arrives, which over loopback is in the bridge's send (2 of its 9 us); else it is here, in our read (3 us). */
static void acknowledge_what_is_read(struct conn *conn) {
    int on = 1;
    setsockopt(conn->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
}

/* ---- the carrier ---- */

static void send_frame(struct call *call) {
    static const char *const names[] = { "inbound", "outbound" };
    uint8_t room[2 * MESSAGE_ROOM], one[MESSAGE_ROOM], *to = room;
    char *text = (char *)one + FRAME_ROOM;
    int64_t at = now();
    for (unsigned track = 0; track < option.tracks; track++) {
        uint32_t number = (call->heard.first + call->sent + track * (pool_count / 2)) % pool_count;
        size_t size, length;
        size = sprintf(text, "{\"sequenceNumber\":%u,\"streamId\":\"20170ada-f610-433b-8758-%012u\",\"event\":"
                       "\"media\",\"media\":{\"track\":\"%s\",\"timestamp\":\"%llu\",\"chunk\":%u,\"payload\":\"",
                       (unsigned)(call->sent * option.tracks + track + 1), call->id, names[track],
                       1778597597091ULL + 20ULL * call->sent, call->sent + 1);
        memcpy(text + size, media + number * option.media_length, option.media_length);
        size += option.media_length;
        size += sprintf(text + size, "\"},\"extra_headers\":\"{}\"}");
        uint8_t *from = build_frame(one, TEXT, size, call->mask, &length);
        memcpy(to, from, length);
        to += length;
    }
    call->sent_at[call->sent++ % RING] = at;
    transmit(&call->carrier, room, to - room);
}

static void connect_one(void) {
    struct call *call = calloc(1, sizeof *call);
    if (!call || call_count == MOST_CALLS) fail("too many calls");
    calls[call_count++] = call;
    call->id = next_id++;
    uint32_t seed = call->id * 2654435761u + 0x9E3779B9u;
    memcpy(call->mask, &seed, 4);
    call->heard.first = call->id * 1031 % pool_count;
    /* When in the 20 ms the call sends: multiples of the golden ratio fill an interval evenly at any number. */
    double turns = call->id * 0.6180339887498949;
    call->phase = (int64_t)((turns - (uint32_t)turns) * FRAME_NS);
    call->acked = (option.held + BLOCK_SAMPLES - 1) / BLOCK_SAMPLES;
    struct conn *conn = &call->carrier;
    *conn = (struct conn){ .kind = CARRIER, .call = call };
    conn->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (conn->fd < 0 || connect(conn->fd, (void *)&bridge, sizeof bridge)) fail("connect");
    adopt(conn, as_client);
    watch(conn, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
}

static void upgrade(struct conn *conn) {
    char text[512];
    conn->state = HTTP;
    transmit(conn, text, request_upgrade(text, bridge_path, ntohs(bridge.sin_port)));
}

static void start_call(struct call *call) {
    char text[512];
    int n = sprintf(text, "{\"sequenceNumber\":0,\"event\":\"start\",\"start\":{\"callId\":\"c%u\",\"streamId\":"
                    "\"20170ada-f610-433b-8758-%012u\",\"accountId\":\"1\",\"tracks\":[\"inbound\"%s],\"mediaFormat\":"
                    "{\"encoding\":\"%s\",\"sampleRate\":8000}},\"extra_headers\":\"{}\"}",
                    call->id, call->id, option.tracks == 2 ? ",\"outbound\"" : "", option.encoding);
    say(&call->carrier, TEXT, text, n);
}

/* ---- EkaScribe ---- */

static void audio(struct call *call, const uint8_t *pcm, size_t size) {
    hear(&call->heard, pcm, size, call->sent);
    uint32_t newest = (call->heard.bytes / 2 + option.held + BLOCK_SAMPLES - 1) / BLOCK_SAMPLES;
    if (newest > call->sent) newest = call->sent;
    if (newest > call->acked) {
        int64_t at = now();
        note(&latencies, &latency_count, &latency_room, at - call->sent_at[(newest - 1) % RING]);
        while (call->acked < newest) note(&delays, &delay_count, &delay_room, at - call->sent_at[call->acked++ % RING]);
    }
    while (saturating && call->sent < call->acked + option.window) send_frame(call);
}

static void eka_text(struct conn *conn, const uint8_t *text, size_t size) {
    static uint8_t pcm[READ_SIZE];
    size_t length;
    const uint8_t *payload = find_payload(text, size, &length);
    if (payload) audio(conn->call, pcm, decode_base64(payload, length, pcm));
    else if (memmem(text, size, "stop", 4)) say(conn, CLOSE, "\x03\xe8", 2);
}

/* Take one frame off ``data``; return its length, 0 for one that is not whole. */
static size_t take_frame(struct conn *conn, uint8_t *data, size_t size) {
    struct frame frame;
    int eka = conn->kind == EKA;
    if (!parse_frame(data, size, &frame)) return 0;
    /* Clients mask and servers do not; nobody here has a reason to send fragments. */
    if (frame.masked != eka || !frame.final) wrong.broken++;
    switch (frame.opcode) {
        case TEXT: if (eka) eka_text(conn, frame.payload, frame.size); break;
        case BINARY: if (eka) audio(conn->call, frame.payload, frame.size); break;
        case CLOSE: say(conn, CLOSE, frame.payload, frame.size < 2 ? 0 : 2); closed(conn); break;
        case PING: say(conn, PONG, frame.payload, frame.size); acknowledge_what_is_read(conn); break;
    }
    return frame.whole;
}

/* EkaScribe's socket is known by its path, which ends in the name of the call. */
static void answer_upgrade(struct conn *conn, const char *head) {
    char answer[256];
    const char *path = strstr(head, "/c");
    int size = accept_upgrade(answer, head);
    unsigned index = path ? strtoul(path + 2, NULL, 10) - (next_id - call_count) : MOST_CALLS;
    if (!size || index >= call_count || calls[index]->eka) {
        wrong.broken++;
        closed(conn);
        return;
    }
    conn->call = calls[index];
    conn->call->eka = conn;
    conn->state = OPEN;
    connected++;
    transmit(conn, answer, size);
    acknowledge_what_is_read(conn);
}

static size_t take_head(struct conn *conn, uint8_t *data, size_t size) {
    uint8_t *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return 0;
    end[3] = 0;
    if (conn->kind == EKA) answer_upgrade(conn, (char *)data);
    else if (!strstr((char *)data, " 101 ")) { wrong.broken++; closed(conn); }
    else { conn->state = OPEN; start_call(conn->call); }
    return end + 4 - data;
}

static void readable(struct conn *conn) {
    static uint8_t data[2 * READ_SIZE];
    for (;;) {
        size_t size = conn->left_size, done = 0, n;
        memcpy(data, conn->left, size);
        ssize_t got = receive(conn, data + size, READ_SIZE);
        if (got < 0) return;
        if (!got) { closed(conn); return; }
        size += got;
        while (conn->state != CLOSED) {
            uint8_t *next = data + done;
            n = conn->state == HTTP ? take_head(conn, next, size - done) : take_frame(conn, next, size - done);
            if (!n) break;
            done += n;
        }
        if (conn->state == CLOSED) return;
        if (size - done > READ_SIZE) { wrong.broken++; closed(conn); return; }
        if (size - done > conn->left_size && !(conn->left = realloc(conn->left, size - done))) fail("memory");
        memcpy(conn->left, data + done, conn->left_size = size - done);
        if (!conn->tls && got < READ_SIZE) return;
    }
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        struct conn *conn = calloc(1, sizeof *conn);
        if (!conn) fail("memory");
        *conn = (struct conn){ .fd = fd, .kind = EKA, .state = as_server ? HANDSHAKE : HTTP };
        adopt(conn, as_server);
        watch(conn, EPOLLIN, EPOLL_CTL_ADD);
    }
}

/* Take a connection from its first event to the upgrade; return 1 where there may be more to read. */
static int advance(struct conn *conn) {
    if (conn->state == CONNECTING) conn->state = conn->tls ? HANDSHAKE : HTTP;
    else if (conn->state != HANDSHAKE) return 1;
    if (conn->state == HANDSHAKE) {
        int done = shake_hands(conn);
        if (done < 0) { wrong.broken++; closed(conn); }
        if (done <= 0) return 0;
        conn->state = HTTP;
    }
    if (conn->kind == CARRIER) upgrade(conn);
    return 1;
}

/* ---- the loop ---- */

static int commands_ready;

static int turn(int64_t wait_ns) {
    struct epoll_event events[256];
    struct timespec wait = { wait_ns / 1000000000, wait_ns % 1000000000 };
    int n = epoll_pwait2(epoll_fd, events, 256, wait_ns < 0 ? NULL : &wait, NULL);
    for (int i = 0; i < n; i++) {
        struct conn *conn = events[i].data.ptr;
        if (conn->kind == LISTENER) { accept_all(conn->fd); continue; }
        if (conn->kind == COMMANDS) { commands_ready = 1; continue; }
        if (!advance(conn)) continue;
        if (conn->state != CLOSED && events[i].events & EPOLLOUT) transmit_unsent(conn);
        if (conn->state != CLOSED && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(conn);
    }
    return n;
}

static uint64_t all_sent(void) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < call_count; i++) sum += calls[i]->sent;
    return sum;
}

/* A resampler and a sink that fills messages hold back what is less than a window. */
static int all_acked(void) {
    for (unsigned i = 0; i < call_count; i++)
        if (!calls[i]->ended && calls[i]->acked + option.window <= calls[i]->sent) return 0;
    return 1;
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static float quantile(const float *list, size_t count, double q) {
    return count ? list[(size_t)(q * (count - 1) + 0.5)] / 1000 : 0;
}

static double cpu_seconds(void) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return use.ru_utime.tv_sec + use.ru_stime.tv_sec + (use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static void report(uint64_t before, double seconds, double busy, double drained) {
    uint64_t waiting = 0;
    for (unsigned i = 0; i < call_count; i++)
        if (!calls[i]->ended && calls[i]->sent >= calls[i]->acked + option.window)
            waiting += calls[i]->sent - calls[i]->acked - option.window + 1;
    qsort(latencies, latency_count, sizeof *latencies, by_value);
    qsort(delays, delay_count, sizeof *delays, by_value);
    qsort(lateness, late_count, sizeof *lateness, by_value);
    printf("{\"frames\": %llu, \"seconds\": %.6f, \"drain_s\": %.6f, \"messages\": %zu, ",
           (unsigned long long)((all_sent() - before) * option.tracks), seconds, drained, latency_count);
    printf("\"p50_ms\": %.4f, \"p99_ms\": %.4f, \"p999_ms\": %.4f, \"max_ms\": %.4f, ",
           quantile(latencies, latency_count, .5), quantile(latencies, latency_count, .99),
           quantile(latencies, latency_count, .999), quantile(latencies, latency_count, 1));
    printf("\"delay_p50_ms\": %.4f, \"delay_p99_ms\": %.4f, ",
           quantile(delays, delay_count, .5), quantile(delays, delay_count, .99));
    printf("\"generator\": %.4f, \"late_p99_ms\": %.4f, \"waiting\": %llu, \"closed\": %u, \"wrong\": %llu}\n",
           busy, quantile(lateness, late_count, .99), (unsigned long long)waiting, ended,
           (unsigned long long)(wrong.lost + wrong.doubled + wrong.foreign + wrong.damaged + wrong.broken));
    latency_count = delay_count = late_count = 0;
}

static int by_phase(const void *a, const void *b) {
    int64_t x = (*(struct call *const *)a)->phase, y = (*(struct call *const *)b)->phase;
    return (x > y) - (x < y);
}

static void run(double seconds, int saturated) {
    static struct call *order[MOST_CALLS];
    memcpy(order, calls, call_count * sizeof *order);
    qsort(order, call_count, sizeof *order, by_phase);
    uint64_t before = all_sent();
    double cpu = cpu_seconds();
    int64_t begun = now(), end = begun + (int64_t)(seconds * 1e9), idle = 0, at;
    if (saturated) {
        saturating = 1;
        for (unsigned i = 0; i < call_count; i++)
            while (calls[i]->sent < calls[i]->acked + option.window) send_frame(calls[i]);
        while ((at = now()) < end) turn(end - at);
        saturating = 0;
    } else {
        unsigned next = 0;
        int64_t round = begun;
        while (call_count && round < end) {
            int64_t moment = round + order[next]->phase;
            if ((at = now()) < moment) {  /* never asleep: to be woken costs the bridge's core, and 0.05 ms here */
                if (!turn(0)) idle += now() - at;
                continue;
            }
            note(&lateness, &late_count, &late_room, at - moment);
            if (!order[next]->ended) send_frame(order[next]);
            if (++next == call_count) { next = 0; round += FRAME_NS; }
            if (next % 64 == 0) turn(0);  /* where sending is late, reading still has its turn */
        }
    }
    double took = (now() - begun) / 1e9, busy = (cpu_seconds() - cpu - idle / 1e9) / took;
    int64_t drain = now();
    while (!all_acked() && now() < drain + 10000000000LL) turn(100000000);
    report(before, took, busy, (now() - drain) / 1e9);
}

static void open_calls(unsigned number) {
    int64_t limit = now() + 120000000000LL;
    while (connected < number && !ended && now() < limit) {
        while (call_count < number && call_count < connected + AT_ONCE) connect_one();
        turn(100000000);
    }
    printf("{\"calls\": %u, \"broken\": %llu}\n", connected, (unsigned long long)wrong.broken);
}

static void stop(void) {
    uint64_t cut = 0, frames = all_sent() * option.tracks;
    int64_t limit = now() + 60000000000LL;
    static const char text[] = "{\"event\":\"stop\",\"reason\":\"call_ended\"}";
    unsigned early = ended;
    for (unsigned i = 0; i < call_count; i++)
        if (calls[i]->carrier.state == OPEN) say(&calls[i]->carrier, TEXT, text, sizeof text - 1);
    while (ended < call_count && now() < limit) turn(100000000);
    for (unsigned i = 0; i < call_count; i++) cut += !whole(&calls[i]->heard, calls[i]->sent, option.slack);
    printf("{\"frames\": %llu, \"lost\": %llu, \"doubled\": %llu, \"foreign\": %llu, \"damaged\": %llu, ",
           (unsigned long long)frames, (unsigned long long)wrong.lost, (unsigned long long)wrong.doubled,
           (unsigned long long)wrong.foreign, (unsigned long long)wrong.damaged);
    printf("\"broken\": %llu, \"cut\": %llu, \"early\": %u, \"unended\": %u}\n", (unsigned long long)wrong.broken,
           (unsigned long long)cut, early, call_count - ended);
    for (unsigned i = 0; i < call_count; i++) {
        closed(&calls[i]->carrier);
        if (calls[i]->eka) { closed(calls[i]->eka); free(calls[i]->eka); }
        free(calls[i]);
    }
    call_count = connected = ended = 0;
    memset(&wrong, 0, sizeof wrong);
}

/* ---- start ---- */

static const void *map(const char *path, size_t *size) {
    struct stat about;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &about)) fail(path);
    const void *data = mmap(NULL, about.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (data == MAP_FAILED) fail(path);
    close(fd);
    *size = about.st_size;
    return data;
}

static void set(const char *word) {
    char name[32], text[512] = "";
    if (sscanf(word, "%31[^=]=%511s", name, text) != 2) { fprintf(stderr, "load: %s?\n", word); exit(2); }
    static const struct { const char *name; size_t *value; } numbers[] = {
        { "media_length", &option.media_length }, { "held", &option.held }, { "window", &option.window },
        { "tracks", &option.tracks }, { "slack", &option.slack }, { "exact", &exact },
    };
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!strcmp(name, numbers[i].name)) {
            *numbers[i].value = strtoul(text, NULL, 10);
            return;
        }
    if (!strcmp(name, "encoding")) snprintf(option.encoding, sizeof option.encoding, "%.31s", text);
    else if (!strcmp(name, "cert")) strcpy(option.cert, text);
    else if (!strcmp(name, "key")) strcpy(option.key, text);
    else { fprintf(stderr, "load: %s?\n", word); exit(2); }
}

static void set_up_tls(void) {
    as_client = tls_context(TLS_client_method());
    as_server = tls_context(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(as_server, option.cert) != 1 ||
        SSL_CTX_use_PrivateKey_file(as_server, option.key, SSL_FILETYPE_PEM) != 1) fail("certificate");
}

int main(int argc, char **argv) {
    static struct conn listener = { .kind = LISTENER }, commands = { .kind = COMMANDS, .fd = 0 };
    struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t here_size = sizeof here;
    size_t size, media_size;
    const uint8_t *blocks;
    if (argc < 3) return 2;
    for (int i = 3; i < argc; i++) set(argv[i]);
    media = map(argv[1], &media_size);
    blocks = map(argv[2], &size);
    index_pool(blocks, size / BLOCK);
    if (media_size != pool_count * option.media_length) {
        fprintf(stderr, "load: media and blocks differ\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    epoll_fd = epoll_create1(0);
    if (option.cert[0]) set_up_tls();
    listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener.fd, (void *)&here, sizeof here) || listen(listener.fd, 4096)) fail("listen");
    getsockname(listener.fd, (void *)&here, &here_size);
    watch(&listener, EPOLLIN, EPOLL_CTL_ADD);
    watch(&commands, EPOLLIN, EPOLL_CTL_ADD);
    bridge.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    printf("{\"port\": %d}\n", ntohs(here.sin_port));
    char line[512];
    for (;;) {
        commands_ready = 0;
        while (!commands_ready) turn(-1);
        if (!fgets(line, sizeof line, stdin)) return 0;
        unsigned port, number;
        double seconds;
        if (sscanf(line, "open %u %255s %u", &port, bridge_path, &number) == 3) {
            bridge.sin_port = htons(port);
            open_calls(number);
        } else if (sscanf(line, "paced %lf", &seconds) == 1) run(seconds, 0);
        else if (sscanf(line, "saturated %lf", &seconds) == 1) run(seconds, 1);
        else if (!strncmp(line, "stop", 4)) stop();
        else { fprintf(stderr, "load: %s?\n", line); return 2; }
    }
}
