// The early half of martlet-runtime's protection of its own program; see protect.c.
#ifndef MARTLET_CPROTECT_H
#define MARTLET_CPROTECT_H

/// Lets go of the mount that the program was taken from at its entry, if it was; the program stays what it is. The kernel
/// waits for all processors when nobody else holds that mount: best called where something else is waited for. Both a
/// process and its child hold it; whoever ends does without this.
///
/// It must be called, in both, before anything of a container's can come near a process of ours: as long as somebody holds
/// the mount, whoever gets at a file of it (/proc/<pid>/exe) and has mount rights in any namespace can make it writable
/// again (mount_setattr(2)).
void cp_unmount_program(void);

#endif
