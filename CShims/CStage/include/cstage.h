// Spawning, and the stages of a container's start between clone and exec: async-signal-safe C only.
#ifndef MARTLET_CSTAGE_H
#define MARTLET_CSTAGE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// What a new process shall look like. Strings and arrays are borrowed until cs_spawn returns.
struct cs_spawn_request {
    const char *path;               // absolute path of the program, or NULL with exec_fd
    int exec_fd;                    // execveat this descriptor when path is NULL
    char *const *argv;              // NULL-terminated
    char *const *envp;              // NULL-terminated
    const int *descriptors;         // descriptors[i] becomes descriptor i in the child; -1 leaves it closed
    int descriptor_count;           // at most 64
    const char *working_directory;  // NULL: inherited
    int cgroup_fd;                  // -1, or a cgroup v2 directory for CLONE_INTO_CGROUP
    int netns_fd;                   // -1, or a network namespace the child enters
    int new_session;                // setsid()
    int parent_death_signal;        // 0, or a signal the child gets when the spawning thread ends
};

/// Starts a process with clone3; the calling thread sleeps until its execve. Returns 0 and fills pid and pidfd
/// (close-on-exec), or -1 with errno and *step naming the call that failed in the child or here.
int cs_spawn(const struct cs_spawn_request *request, pid_t *pid, int *pidfd, const char **step);

#endif
