#define _GNU_SOURCE
#include "ckernel_network.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <linux/sockios.h>

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

int ck_route_add_default(const char *name, uint32_t gateway) {
    struct rtentry route;
    memset(&route, 0, sizeof route);
    struct sockaddr_in any = { .sin_family = AF_INET }, router = { .sin_family = AF_INET, .sin_addr.s_addr = gateway };
    memcpy(&route.rt_dst, &any, sizeof any);
    memcpy(&route.rt_genmask, &any, sizeof any);
    memcpy(&route.rt_gateway, &router, sizeof router);
    route.rt_flags = RTF_UP | RTF_GATEWAY;
    route.rt_dev = (char *)name;
    return control(SIOCADDRT, &route);
}
