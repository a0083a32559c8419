// The early half of martlet-runtime's protection of its own program; see protect.c. It has nothing to be called.
#ifndef MARTLET_CPROTECT_H
#define MARTLET_CPROTECT_H
#endif
