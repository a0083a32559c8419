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

// rtnetlink(7), for programs without libnl; checked in network.c.
enum {
    CK_AF_NETLINK = 16, CK_SOL_NETLINK = 270, CK_NETLINK_CAP_ACK = 10, CK_NETLINK_EXT_ACK = 11,
    CK_NLMSG_ERROR = 2, CK_NLMSG_DONE = 3, CK_NLM_F_REQUEST = 1, CK_NLM_F_ACK = 4, CK_NLM_F_DUMP_INTR = 0x10,
    CK_NLM_F_CAPPED = 0x100, CK_NLM_F_ACK_TLVS = 0x200, CK_NLM_F_DUMP = 0x300, CK_NLM_F_REPLACE = 0x100,
    CK_NLM_F_CREATE = 0x400, CK_NLMSGERR_ATTR_MSG = 1,
    CK_RTM_NEWLINK = 16, CK_RTM_GETLINK = 18, CK_RTM_SETLINK = 19, CK_RTM_NEWADDR = 20, CK_RTM_GETADDR = 22,
    CK_IFLA_IFNAME = 3, CK_IFLA_NET_NS_FD = 28, CK_IFLA_NEW_IFINDEX = 49,
    CK_IFA_ADDRESS = 1, CK_IFA_LOCAL = 2, CK_IFA_BROADCAST = 4, CK_IFA_FLAGS = 8, CK_IFA_RT_PRIORITY = 9,
    CK_IFA_F_NODAD = 2, CK_IFA_F_HOMEADDRESS = 0x10, CK_IFA_F_PERMANENT = 0x80, CK_IFA_F_MANAGETEMPADDR = 0x100,
    CK_IFA_F_NOPREFIXROUTE = 0x200, CK_IFA_F_MCAUTOJOIN = 0x400, CK_RT_SCOPE_UNIVERSE = 0,
};

#endif
