// The stages of a container's start that are written in C: entering namespaces, and the last steps before execve.
// Everything here makes system calls only; nothing allocates.
#ifndef MARTLET_CSTAGE_CONTAINER_H
#define MARTLET_CSTAGE_CONTAINER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// A message between the runtime and the process that becomes the container: always this size, on a SEQPACKET socket.
enum { CS_TEXT_SIZE = 1000 };
enum cs_kind {
    CS_FAILED = 1,     // child: `error` (errno or 0) and text; it ends
    CS_MAPPED = 2,     // runtime: the id maps are written
    CS_HOOKS = 3,      // child: the mounts are made, run the runtime's hooks
    CS_HOOKS_DONE = 4, // runtime: they succeeded
    CS_READY = 5,      // child: everything but the program's start is done
    CS_GO = 6,         // runtime: execute the program; the text is what cs_ignored_signals told, in hexadecimal digits (none
                       // after CS_LISTENER)
    CS_TERMINAL = 7,   // child: one descriptor comes along, the main side of the terminal
    CS_WARNING = 8,    // child: text for the log
    CS_DESCRIPTOR = 9, // intermediate: one descriptor comes along, the pidfd of the container's process
    CS_LISTENER = 10,  // child: it loads a filter with a listener once it reads CS_GO; `error` is the number that the
                       // listener will have in it, and in the file that comes along a first byte that is not 0
                       // tells it that the runtime has a copy
    CS_PUBLISHED = 11, // runtime: a record tells of the child from now on, so it need not end with the runtime; the text
                       // is as that of CS_GO
    CS_GROUPS = 12,    // runtime: descriptors come along, the `tasks` of the next v1 groups that the child enters
    CS_ENTERED = 13    // child: it is in all of its namespaces and groups
};
struct cs_message {
    uint32_t kind;
    int32_t error;
    uint32_t length;  // bytes of text
    uint32_t reserved;
    char text[CS_TEXT_SIZE];
};
_Static_assert(sizeof(struct cs_message) == 1016, "fixed size");

enum { CS_MOST_DESCRIPTORS = 16 };

/// Sends one message with a text (cut to CS_TEXT_SIZE) and some descriptors. 0, or -1 with errno.
int cs_send(
    int socket, uint32_t kind, int32_t error, const char *text, size_t length, const int *descriptors, int count);
/// Receives one message with at most *count descriptors, which are closed on execve: 1, 0 when the other side has closed,
/// -1 with errno (EPROTO: not one of ours). *count becomes how many came.
int cs_receive(int socket, struct cs_message *message, int *descriptors, int *count);

/// The namespaces of a new process: what it joins and what is made.
struct cs_join { int fd; int type; };  // type: CLONE_NEW* bits; fd: a namespace, or a pidfd
struct cs_entry {
    uint64_t new_namespaces;      // CLONE_NEW* without pid joined by fd, time, cgroup, and what the child makes itself
    int pid_namespace;            // -1, or a pid namespace (or pidfd) whose member the child becomes
    int user_namespace;           // -1, or a user namespace (or pidfd) to join, after all others
    const struct cs_join *joins;  // the others
    int join_count;
    const char *time_offsets;     // NULL, or what to write to timens_offsets of a new time namespace (may be "")
    int cgroup;                   // -1, or a cgroup v2 directory (CLONE_INTO_CGROUP)
    int socket;                   // the child's end of a SEQPACKET socket pair
    int runtime_socket;           // the runtime's end, closed in the child
    int wait_for_maps;            // the child waits for CS_MAPPED, then becomes uid 0 and gid 0
};

/// Makes a process in these namespaces that goes on from here, like fork(2): 0 in the child, its pid in the caller
/// (with *pidfd, close-on-exec), or -1 in the caller with errno and *step. The calling process must have one thread.
/// A child that fails sends CS_FAILED and ends.
pid_t cs_enter(const struct cs_entry *entry, int *pidfd, const char **step);

/// Moves the calling thread off the processor that a new process shall begin on, if it is on it and there is another that it
/// may be on, so that the process begins now. The kernel puts both on one when the others are busy at that moment, and leaves
/// them there when one becomes idle. cs_use_all_processors undoes it: the mask of sched_setaffinity(2) is what it was, of those
/// processors that were there then.
void cs_leave_processor(pid_t pid);
void cs_use_all_processors(void);

/// Makes a process in a new user namespace that does nothing until it is killed (at the latest with the caller, which
/// must have one thread): its pid with a pidfd (close-on-exec), or -1 with errno.
pid_t cs_hold_user_namespace(int *pidfd);

/// fork(2) with a pidfd (close-on-exec), for a process with one thread.
pid_t cs_fork(int *pidfd);

/// The program to become, and as whom.
struct cs_limit { int resource; const char *name; uint64_t soft, hard; };
struct cs_process {
    char *const *paths;       // NULL-terminated: absolute paths to try in order
    char *const *argv;
    char *const *envp;
    const char *directory;    // absolute, must lie in the process's root
    uint32_t uid, gid;
    const uint32_t *groups;
    int group_count;          // -1: the supplementary groups stay (setgroups is denied in this user namespace)
    int mask;                 // umask, or -1 to leave it
    const struct cs_limit *limits;
    int limit_count;
    int set_capabilities;     // 0: leave them
    uint64_t bounding, effective, permitted, inheritable, ambient;
    int no_new_privileges;
    const void *filter;       // struct sock_filter[], or NULL
    unsigned short filter_length;
    uint32_t filter_flags;    // with SECCOMP_FILTER_FLAG_NEW_LISTENER the runtime is asked to take the listener
    long personality;         // -1: leave it
    int keep_descriptors;     // how many descriptors from 3 on stay open
    int socket;               // where CS_FAILED goes; it closes when execve succeeds
    uint64_t ignored_signals; // what the program shall not ignore nor handle at its start: bit N - 1 for signal N
};

/// The signals that the calling process ignores: bit N - 1 for signal N.
uint64_t cs_ignored_signals(void);

/// Becomes the program, or reports why not and ends with status 1.
_Noreturn void cs_execute(const struct cs_process *process);

/// Starts a program and stays beside it as an init: passes signals on, waits for orphans, and returns how the program
/// ended (128 + N for signal N; 127 or 126 when it cannot be executed). argv is NULL-terminated, argv[0] is looked up
/// in PATH. For a process with one thread, of which it takes all signals.
int cs_init(char *const *argv);

/// Executes the file behind a descriptor; returns -1 with errno.
int cs_execute_file(int fd, char *const *argv, char *const *envp);

#endif
