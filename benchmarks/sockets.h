/* Connections that never block, with TLS or without, on one epoll. */

#include "wire.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct conn {
    int fd;
    enum { LISTENER, COMMANDS, CARRIER, EKA } kind;
    enum { CONNECTING, HANDSHAKE, HTTP, OPEN, CLOSED } state;
    SSL *tls;
    struct call *call;
    uint8_t *left;  /* read, but not a whole message yet */
    size_t left_size;
    uint8_t *unsent;  /* the socket did not take it */
    size_t unsent_size;
};

static int epoll_fd;

static void fail(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(struct conn *conn, int events, int how) {
    struct epoll_event event = { .events = events, .data.ptr = conn };
    if (epoll_ctl(epoll_fd, how, conn->fd, &event)) fail("epoll_ctl");
}

/* Begin with a connected or accepted socket. */
static void adopt(struct conn *conn, SSL_CTX *context) {
    int on = 1;
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(conn->fd, F_SETFL, O_NONBLOCK);
    if (!context) return;
    conn->tls = SSL_new(context);
    SSL_set_fd(conn->tls, conn->fd);
    if (conn->kind == EKA) SSL_set_accept_state(conn->tls);
    else SSL_set_connect_state(conn->tls);
}

/* Return 1 when TLS stands, 0 while it does not, -1 where it cannot. */
static inline int shake_hands(struct conn *conn) {
    ERR_clear_error();
    int n = SSL_do_handshake(conn->tls), why = SSL_get_error(conn->tls, n);
    if (n != 1 && why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) return -1;
    watch(conn, n != 1 && why == SSL_ERROR_WANT_WRITE ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
    return n == 1;
}

/* Return the number of bytes read, 0 at the end of the connection, -1 where there is nothing yet. */
static ssize_t receive(struct conn *conn, uint8_t *into, size_t room) {
    if (!conn->tls) {
        ssize_t n = recv(conn->fd, into, room, 0);
        return n < 0 && errno != EAGAIN ? 0 : n;
    }
    ERR_clear_error();
    int n = SSL_read(conn->tls, into, (int)room);
    if (n > 0) return n;
    int why = SSL_get_error(conn->tls, n);
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? -1 : 0;
}

/* Send, and keep what the socket does not take. */
static void transmit(struct conn *conn, const void *data, size_t size) {
    ssize_t n = 0;
    if (conn->state == CLOSED) return;
    if (!conn->unsent_size) {
        ERR_clear_error();
        n = conn->tls ? SSL_write(conn->tls, data, (int)size) : send(conn->fd, data, size, MSG_NOSIGNAL);
        if (n < 0) n = 0;
        if ((size_t)n == size) return;
        watch(conn, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    }
    if (!(conn->unsent = realloc(conn->unsent, conn->unsent_size + size - n))) fail("memory");
    memcpy(conn->unsent + conn->unsent_size, (const uint8_t *)data + n, size - n);
    conn->unsent_size += size - n;
}

static void transmit_unsent(struct conn *conn) {
    uint8_t *data = conn->unsent;
    size_t size = conn->unsent_size;
    conn->unsent = NULL;
    conn->unsent_size = 0;
    watch(conn, EPOLLIN, EPOLL_CTL_MOD);
    if (size) transmit(conn, data, size);
    free(data);
}

static void hang_up(struct conn *conn) {
    if (conn->state == CLOSED) return;
    conn->state = CLOSED;
    if (conn->tls) SSL_free(conn->tls);
    close(conn->fd);
    free(conn->left);
    free(conn->unsent);
    conn->tls = NULL;
    conn->left = conn->unsent = NULL;
    conn->left_size = conn->unsent_size = 0;
}

static inline SSL_CTX *tls_context(const SSL_METHOD *method) {
    SSL_CTX *context = SSL_CTX_new(method);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return context;
}
