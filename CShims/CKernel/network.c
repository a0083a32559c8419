#define _GNU_SOURCE
#include "ckernel_network.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <net/if_arp.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>

#define SAME(a, b) _Static_assert((unsigned long)(a) == (unsigned long)(b), #a)
SAME(CK_AF_NETLINK, AF_NETLINK); SAME(CK_SOL_NETLINK, SOL_NETLINK); SAME(CK_NETLINK_CAP_ACK, NETLINK_CAP_ACK);
SAME(CK_NETLINK_EXT_ACK, NETLINK_EXT_ACK); SAME(CK_NLMSG_ERROR, NLMSG_ERROR); SAME(CK_NLMSG_DONE, NLMSG_DONE);
SAME(CK_NLM_F_REQUEST, NLM_F_REQUEST); SAME(CK_NLM_F_ACK, NLM_F_ACK); SAME(CK_NLM_F_DUMP_INTR, NLM_F_DUMP_INTR);
SAME(CK_NLM_F_CAPPED, NLM_F_CAPPED); SAME(CK_NLM_F_ACK_TLVS, NLM_F_ACK_TLVS); SAME(CK_NLM_F_DUMP, NLM_F_DUMP);
SAME(CK_NLM_F_REPLACE, NLM_F_REPLACE); SAME(CK_NLM_F_CREATE, NLM_F_CREATE);
SAME(CK_NLMSGERR_ATTR_MSG, NLMSGERR_ATTR_MSG); SAME(CK_RTM_NEWLINK, RTM_NEWLINK); SAME(CK_RTM_GETLINK, RTM_GETLINK);
SAME(CK_RTM_SETLINK, RTM_SETLINK); SAME(CK_RTM_NEWADDR, RTM_NEWADDR); SAME(CK_RTM_GETADDR, RTM_GETADDR);
SAME(CK_IFLA_IFNAME, IFLA_IFNAME); SAME(CK_IFLA_NET_NS_FD, IFLA_NET_NS_FD);
SAME(CK_IFLA_NEW_IFINDEX, IFLA_NEW_IFINDEX); SAME(CK_IFA_ADDRESS, IFA_ADDRESS); SAME(CK_IFA_LOCAL, IFA_LOCAL);
SAME(CK_IFA_BROADCAST, IFA_BROADCAST); SAME(CK_IFA_FLAGS, IFA_FLAGS); SAME(CK_IFA_RT_PRIORITY, IFA_RT_PRIORITY);
SAME(CK_IFA_F_NODAD, IFA_F_NODAD); SAME(CK_IFA_F_HOMEADDRESS, IFA_F_HOMEADDRESS);
SAME(CK_IFA_F_PERMANENT, IFA_F_PERMANENT); SAME(CK_IFA_F_MANAGETEMPADDR, IFA_F_MANAGETEMPADDR);
SAME(CK_IFA_F_NOPREFIXROUTE, IFA_F_NOPREFIXROUTE); SAME(CK_IFA_F_MCAUTOJOIN, IFA_F_MCAUTOJOIN);
SAME(CK_RT_SCOPE_UNIVERSE, RT_SCOPE_UNIVERSE);

static int fill(struct ifreq *request, const char *name) {
    memset(request, 0, sizeof *request);
    if (strlen(name) >= sizeof request->ifr_name) { errno = ENAMETOOLONG; return -1; }
    strcpy(request->ifr_name, name);
    return 0;
}

static int control(unsigned long number, void *argument) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    int result = ioctl(fd, number, argument);
    int saved = errno;
    close(fd);
    errno = saved;
    return result;
}

static int with_name(unsigned long number, const char *name) {
    struct ifreq request;
    if (fill(&request, name) < 0) return -1;
    return control(number, request.ifr_name);
}

int ck_bridge_add(const char *name) { return with_name(SIOCBRADDBR, name); }
int ck_bridge_delete(const char *name) { return with_name(SIOCBRDELBR, name); }

int ck_interface_down(const char *name) {
    struct ifreq request;
    if (fill(&request, name) < 0 || control(SIOCGIFFLAGS, &request) < 0) return -1;
    request.ifr_flags &= ~IFF_UP;
    return control(SIOCSIFFLAGS, &request);
}

int ck_interface_mtu(const char *name, int *mtu) {
    struct ifreq request;
    if (fill(&request, name) < 0 || control(SIOCGIFMTU, &request) < 0) return -1;
    *mtu = request.ifr_mtu;
    return 0;
}

int ck_interface_set_mtu(const char *name, int mtu) {
    struct ifreq request;
    if (fill(&request, name) < 0) return -1;
    request.ifr_mtu = mtu;
    return control(SIOCSIFMTU, &request);
}

int ck_interface_set_mac(const char *name, const uint8_t *mac) {
    struct ifreq request;
    if (fill(&request, name) < 0) return -1;
    request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    memcpy(request.ifr_hwaddr.sa_data, mac, 6);
    return control(SIOCSIFHWADDR, &request);
}

static int set_address(const char *name, unsigned long number, uint32_t address) {
    struct ifreq request;
    if (fill(&request, name) < 0) return -1;
    struct sockaddr_in socket_address = { .sin_family = AF_INET, .sin_addr.s_addr = address };
    memcpy(&request.ifr_addr, &socket_address, sizeof socket_address);
    return control(number, &request);
}

int ck_interface_set_ipv4(const char *name, uint32_t address, uint32_t mask, uint32_t broadcast) {
    if (set_address(name, SIOCSIFADDR, address) < 0) return -1;
    if (set_address(name, SIOCSIFNETMASK, mask) < 0) return -1;
    return set_address(name, SIOCSIFBRDADDR, broadcast);
}
