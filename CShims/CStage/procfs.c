#include "procfs.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int cs_read_procfs(const char *before, unsigned int number, const char *after, char *text, size_t size) {
    char path[64], digits[12];
    size_t end = strlen(before);
    int n = 0;
    memcpy(path, before, end);
    do digits[n++] = (char)('0' + number % 10); while (number /= 10);
    while (n > 0) path[end++] = digits[--n];
    memcpy(path + end, after, strlen(after) + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t length = read(fd, text, size - 1);
    int failure = length < 0 ? errno : EPROTO;
    close(fd);
    if (length <= 0) {
        errno = failure;
        return -1;
    }
    text[length] = 0;
    return 0;
}
