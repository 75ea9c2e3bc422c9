/* Stands before libc's connect, sendto, sendmsg and getaddrinfo: appends to $CONNECTIONS_LOG what would leave the machine,
   and refuses it. Loopback and everything that is not IP pass.

   A line is `PID connect|send ADDRESS PORT` or `PID lookup NAME 0`. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void note(const char *what, const char *where, int port) {
    const char *path = getenv("CONNECTIONS_LOG");
    char line[512];
    int saved = errno;
    int length = snprintf(line, sizeof line, "%d %s %.300s %d\n", (int)getpid(), what, where, port);
    int file = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (file >= 0) {
        if (write(file, line, (size_t)length) < 0) abort(); /* a log that loses lines proves nothing */
        close(file);
    }
    errno = saved;
}

static int leaves(const char *what, const struct sockaddr *address) {
    char text[INET6_ADDRSTRLEN] = "?";
    if (address == NULL) return 0;
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        if ((ntohl(in->sin_addr.s_addr) >> 24) == 127 || in->sin_addr.s_addr == 0) return 0;
        inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
        note(what, text, ntohs(in->sin_port));
        return 1;
    }
    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)address;
        if (IN6_IS_ADDR_LOOPBACK(&in->sin6_addr) || IN6_IS_ADDR_UNSPECIFIED(&in->sin6_addr)) return 0;
        if (IN6_IS_ADDR_V4MAPPED(&in->sin6_addr) && in->sin6_addr.s6_addr[12] == 127) return 0;
        inet_ntop(AF_INET6, &in->sin6_addr, text, sizeof text);
        note(what, text, ntohs(in->sin6_port));
        return 1;
    }
    return 0;
}

int connect(int fd, const struct sockaddr *address, socklen_t length) {
    static int (*real)(int, const struct sockaddr *, socklen_t);
    if (!real) real = dlsym(RTLD_NEXT, "connect");
    int type = 0;
    socklen_t size = sizeof type;
    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);
    /* A datagram socket that is connected sends nothing: it is how a program asks for its own address. */
    if (type != SOCK_DGRAM && leaves("connect", address)) {
        errno = ENETUNREACH;
        return -1;
    }
    return real(fd, address, length);
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address, socklen_t length) {
    static ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    if (!real) real = dlsym(RTLD_NEXT, "sendto");
    if (leaves("send", address)) {
        errno = ENETUNREACH;
        return -1;
    }
    return real(fd, data, size, flags, address, length);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    static ssize_t (*real)(int, const struct msghdr *, int);
    if (!real) real = dlsym(RTLD_NEXT, "sendmsg");
    if (message && leaves("send", message->msg_name)) {
        errno = ENETUNREACH;
        return -1;
    }
    return real(fd, message, flags);
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    if (!real) real = dlsym(RTLD_NEXT, "getaddrinfo");
    char own[256] = "";
    gethostname(own, sizeof own - 1);
    unsigned char buffer[16];
    int numeric = name && (inet_pton(AF_INET, name, buffer) || inet_pton(AF_INET6, name, buffer));
    if (name && *name && !numeric && strcmp(name, "localhost") && strcmp(name, own)) {
        note("lookup", name, 0);
        return EAI_NONAME;
    }
    return real(name, service, hints, found);
}
