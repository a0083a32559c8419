// Network interfaces by ioctl, see netdevice(7): what needs struct ifreq's union. No logic.
// All work in the calling thread's network namespace.
#ifndef MARTLET_CKERNEL_NETWORK_H
#define MARTLET_CKERNEL_NETWORK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

int ck_bridge_add(const char *name);
// The bridge must be down.
int ck_bridge_delete(const char *name);
int ck_interface_down(const char *name);
int ck_interface_mtu(const char *name, int *mtu);
int ck_interface_set_mtu(const char *name, int mtu);
// Six bytes.
int ck_interface_set_mac(const char *name, const uint8_t *mac);
// Address and netmask in network byte order. While the interface is down, so that no route of a wrong length appears
// in between.
int ck_interface_set_ipv4(const char *name, uint32_t address, uint32_t mask, uint32_t broadcast);
// The gateway in network byte order, which the interface reaches.
int ck_route_add_default(const char *name, uint32_t gateway);

#endif
