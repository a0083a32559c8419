#define _GNU_SOURCE
#include "cstage_container.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union control {
    struct cmsghdr header;
    char space[CMSG_SPACE(CS_MOST_DESCRIPTORS * sizeof(int))];
};

int cs_send(
    int socket, uint32_t kind, int32_t error, const char *text, size_t length, const int *descriptors, int count) {
    struct cs_message message = { .kind = kind, .error = error };
    message.length = (uint32_t)(length < CS_TEXT_SIZE ? length : CS_TEXT_SIZE);
    if (message.length) memcpy(message.text, text, message.length);
    struct iovec part = { &message, sizeof message };
    union control control = {0};
    struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };
    if (count > CS_MOST_DESCRIPTORS) {
        errno = E2BIG;
        return -1;
    }
    if (count > 0) {
        header.msg_control = control.space;
        header.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
        memcpy(CMSG_DATA(rights), descriptors, (size_t)count * sizeof(int));
    }
    ssize_t sent;
    do sent = sendmsg(socket, &header, MSG_NOSIGNAL); while (sent < 0 && errno == EINTR);
    return sent < 0 ? -1 : 0;
}

int cs_receive(int socket, struct cs_message *message, int *descriptors, int *count) {
    struct iovec part = { message, sizeof *message };
    union control control = {0};
    struct msghdr header = {
        // Not all of the space: with its padding it may hold one more descriptor, and nobody would close that one.
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space,
        .msg_controllen = CMSG_LEN((size_t)*count * sizeof(int)),
    };
    *count = 0;
    ssize_t received;
    // A peer that ended with messages of ours unread makes one call fail with ECONNRESET; what it had sent is still
    // there, and then its end.
    do {
        received = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    } while (received < 0 && (errno == EINTR || errno == ECONNRESET));
    if (received <= 0) return (int)received;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    if (rights && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
        *count = (int)((rights->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(descriptors, CMSG_DATA(rights), (size_t)*count * sizeof(int));
    }
    int cut = header.msg_flags & (MSG_TRUNC | MSG_CTRUNC);
    if (received != sizeof *message || message->length > CS_TEXT_SIZE || cut) {
        while (*count > 0) close(descriptors[--*count]);
        errno = EPROTO;
        return -1;
    }
    return 1;
}
