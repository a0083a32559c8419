// libFuzzer as a library, see https://llvm.org/docs/LibFuzzer.html.
#ifndef MARTLET_CFUZZER_H
#define MARTLET_CFUZZER_H

#include <stddef.h>
#include <stdint.h>

/// Parses libFuzzer's options and calls `test` with one input after another; returns the exit status.
int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*test)(const uint8_t *data, size_t size));

#endif
