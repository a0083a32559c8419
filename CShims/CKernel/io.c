#define _GNU_SOURCE
#include "ckernel_io.h"
#include <errno.h>
#include <stddef.h>
#include <fcntl.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

_Static_assert(sizeof(struct termios) <= CK_TERMIOS_SIZE, "termios");

union control {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int) * CK_MAX_PASSED_DESCRIPTORS)];
};

long ck_send_descriptors(int socket, const void *data, size_t length, const int *descriptors, int count, int flags) {
    if (count < 0 || count > CK_MAX_PASSED_DESCRIPTORS) { errno = EINVAL; return -1; }
    struct iovec part = { (void *)data, length };
    union control control = {0};
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    if (count > 0) {
        message.msg_control = control.space;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
        memcpy(CMSG_DATA(header), descriptors, sizeof(int) * (size_t)count);
    }
    return sendmsg(socket, &message, flags | MSG_NOSIGNAL);
}

long ck_receive_descriptors(int socket, void *data, size_t length, int *descriptors, int capacity,
                            int *count, int flags) {
    struct iovec part = { data, length };
    union control control = {0};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space,
    };
    *count = 0;
    ssize_t received = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
    if (received < 0) return -1;
    int too_many = 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        size_t found = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < found; i++) {
            int descriptor;
            memcpy(&descriptor, CMSG_DATA(header) + i * sizeof(int), sizeof descriptor);
            if (*count < capacity) descriptors[(*count)++] = descriptor;
            else { close(descriptor); too_many = 1; }
        }
    }
    if (too_many || (message.msg_flags & (MSG_CTRUNC | MSG_TRUNC))) {
        while (*count > 0) close(descriptors[--*count]);
        errno = EMSGSIZE;
        return -1;
    }
    return received;
}

int ck_peer_credentials(int socket, pid_t *pid, uid_t *uid, gid_t *gid) {
    struct ucred peer;
    socklen_t length = sizeof peer;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0) return -1;
    *pid = peer.pid;
    *uid = peer.uid;
    *gid = peer.gid;
    return 0;
}

static int address(const char *path, struct sockaddr_un *result) {
    size_t length = strlen(path);
    if (length == 0) { errno = EINVAL; return -1; }
    if (length >= sizeof result->sun_path) { errno = ENAMETOOLONG; return -1; }
    memset(result, 0, sizeof *result);
    result->sun_family = AF_UNIX;
    memcpy(result->sun_path, path, length);
    return 0;
}

int ck_unix_bind(int socket, const char *path) {
    struct sockaddr_un name;
    if (address(path, &name) < 0) return -1;
    return bind(socket, (struct sockaddr *)&name, sizeof name);
}

int ck_unix_connect(int socket, const char *path) {
    struct sockaddr_un name;
    if (address(path, &name) < 0) return -1;
    return connect(socket, (struct sockaddr *)&name, sizeof name);
}

int ck_unix_connect_abstract(int socket, const char *name) {
    struct sockaddr_un target = {.sun_family = AF_UNIX};
    size_t length = strlen(name);
    if (length >= sizeof target.sun_path) { errno = ENAMETOOLONG; return -1; }
    memcpy(target.sun_path + 1, name, length);
    return connect(socket, (struct sockaddr *)&target, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length));
}

int ck_interface_up(const char *name) {
    struct ifreq request = {0};
    if (strlen(name) >= sizeof request.ifr_name) { errno = ENAMETOOLONG; return -1; }
    strcpy(request.ifr_name, name);
    int probe = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (probe < 0) return -1;
    int result = ioctl(probe, SIOCGIFFLAGS, &request);
    if (result == 0) {
        request.ifr_flags |= IFF_UP;
        result = ioctl(probe, SIOCSIFFLAGS, &request);
    }
    int number = errno;
    close(probe);
    errno = number;
    return result;
}

int ck_pty_unlock(int master) {
    int locked = 0;
    return ioctl(master, TIOCSPTLCK, &locked);
}
int ck_pty_peer(int master, int flags) { return ioctl(master, TIOCGPTPEER, flags); }
int ck_pty_number(int master, unsigned int *number) { return ioctl(master, TIOCGPTN, number); }
int ck_terminal_control(int terminal) { return ioctl(terminal, TIOCSCTTY, 0); }

int ck_terminal_get_size(int terminal, uint16_t *columns, uint16_t *rows) {
    struct winsize size;
    if (ioctl(terminal, TIOCGWINSZ, &size) < 0) return -1;
    *columns = size.ws_col;
    *rows = size.ws_row;
    return 0;
}

int ck_terminal_set_size(int terminal, uint16_t columns, uint16_t rows) {
    struct winsize size = { .ws_col = columns, .ws_row = rows };
    return ioctl(terminal, TIOCSWINSZ, &size);
}

int ck_terminal_raw(int terminal, void *saved) {
    struct termios settings;
    if (tcgetattr(terminal, &settings) < 0) return -1;
    memcpy(saved, &settings, sizeof settings);
    cfmakeraw(&settings);
    return tcsetattr(terminal, TCSANOW, &settings);
}

int ck_terminal_restore(int terminal, const void *saved) {
    struct termios settings;
    memcpy(&settings, saved, sizeof settings);
    return tcsetattr(terminal, TCSANOW, &settings);
}
