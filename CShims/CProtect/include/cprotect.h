// The early half of martlet-runtime's protection of its own program; see protect.c.
#ifndef MARTLET_CPROTECT_H
#define MARTLET_CPROTECT_H

/// Lets go of the mount that the program was taken from at its entry, if it was; the program stays what it is. The kernel
/// waits for all processors when nobody else holds that mount: best called where something else is waited for. Both a
/// process and its child hold it; whoever ends does without this.
void cp_unmount_program(void);

#endif
