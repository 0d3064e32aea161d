// The floor of the benchmark: a relay that reads and writes and does nothing else.
// One epoll loop; each downstream connection has one upstream connection of its own.
// It shows what the kernel's TCP path costs and in which phase the machine is.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static int peer[65536];
static char buffer[262144];

static int listen_on(int port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 1024)) { perror("floor: listen"); exit(1); }
  return fd;
}

static int dial(int port) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (connect(fd, (struct sockaddr *)&a, sizeof a)) { close(fd); return -1; }
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

static void drop(int fd) {
  int other = peer[fd];
  peer[fd] = 0;
  close(fd);
  if (other > 0) { peer[other] = 0; close(other); }
}

static void watch(int ep, int fd) {
  struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
  epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
}

static void accept_one(int ep, int ln, int upstream) {
  int on = 1, down = accept4(ln, 0, 0, 0);
  if (down < 0 || down >= 65536) return;
  int up = dial(upstream);
  if (up < 0 || up >= 65536) { close(down); return; }
  setsockopt(down, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  peer[down] = up;
  peer[up] = down;
  watch(ep, down);
  watch(ep, up);
}

static void relay(int fd) {
  if (peer[fd] == 0) return;
  ssize_t n = read(fd, buffer, sizeof buffer);
  if (n <= 0) { drop(fd); return; }
  for (ssize_t done = 0; done < n;) {
    ssize_t w = write(peer[fd], buffer + done, n - done);
    if (w < 0) { drop(fd); return; }
    done += w;
  }
}

int main(int argc, char **argv) {
  if (argc != 3) { fprintf(stderr, "usage: floor PORT UPSTREAM_PORT\n"); return 2; }
  int ln = listen_on(atoi(argv[1])), ep = epoll_create1(0);
  struct epoll_event events[256];
  watch(ep, ln);
  for (;;) {
    int n = epoll_wait(ep, events, 256, -1);
    if (n < 0 && errno != EINTR) return 1;
    for (int i = 0; i < n; i++) {
      if (events[i].data.fd == ln) accept_one(ep, ln, atoi(argv[2]));
      else relay(events[i].data.fd);
    }
  }
}
