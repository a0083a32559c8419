// What Swift's runtime does before `main`, made shorter for the small programs: see start.c. It has nothing to be called.
#ifndef MARTLET_CSTART_H
#define MARTLET_CSTART_H
#endif
