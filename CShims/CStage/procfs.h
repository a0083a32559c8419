// A file of procfs whose name has a number in it, read without what glibc formats text with. Not for Swift.
#ifndef MARTLET_CSTAGE_PROCFS_H
#define MARTLET_CSTAGE_PROCFS_H

#include <stddef.h>

/// Reads `before``number``after` into a text of less than `size` bytes: 0, or -1 with errno.
int cs_read_procfs(const char *before, unsigned int number, const char *after, char *text, size_t size);

#endif
