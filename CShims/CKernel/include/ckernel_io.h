// Sockets with descriptors and credentials, terminals, and interface flags: what needs macros or unions that
// Swift cannot spell. No logic.
#ifndef MARTLET_CKERNEL_IO_H
#define MARTLET_CKERNEL_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { CK_MAX_PASSED_DESCRIPTORS = 64 };

// One sendmsg(2) with up to 64 descriptors (SCM_RIGHTS). Returns the bytes sent, or -1.
long ck_send_descriptors(int socket, const void *data, size_t length, const int *descriptors, int count, int flags);
// One recvmsg(2). Received descriptors are close-on-exec. More than `capacity` of them, or a cut message: all are
// closed and the call fails with EMSGSIZE. Returns the bytes received, 0 at the end, or -1.
long ck_receive_descriptors(int socket, void *data, size_t length, int *descriptors, int capacity,
                            int *count, int flags);
// SO_PEERCRED.
int ck_peer_credentials(int socket, pid_t *pid, uid_t *uid, gid_t *gid);
// A pathname socket; ENAMETOOLONG when the path does not fit in sun_path.
int ck_unix_bind(int socket, const char *path);
int ck_unix_connect(int socket, const char *path);
// The same with a name of the abstract namespace, see unix(7).
int ck_unix_connect_abstract(int socket, const char *name);

// Sets IFF_UP on an interface of the calling thread's network namespace.
int ck_interface_up(const char *name);

// Pseudo-terminals, see ioctl_tty(2).
int ck_pty_unlock(int master);
int ck_pty_peer(int master, int flags);
int ck_pty_number(int master, unsigned int *number);
int ck_terminal_control(int terminal);
int ck_terminal_get_size(int terminal, uint16_t *columns, uint16_t *rows);
int ck_terminal_set_size(int terminal, uint16_t columns, uint16_t rows);
// Raw mode, as cfmakeraw(3); `saved` (CK_TERMIOS_SIZE bytes) keeps the settings for ck_terminal_restore.
enum { CK_TERMIOS_SIZE = 64 };
int ck_terminal_raw(int terminal, void *saved);
int ck_terminal_restore(int terminal, const void *saved);

#endif
