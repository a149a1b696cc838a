/* relay NAME PORT: resolves, connects, prints its peer on standard error, and relays between standard
   input and output and the socket. */
#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int error = getaddrinfo(argv[1], argv[2], &hints, &found);
    if (error) { fprintf(stderr, "%s\n", gai_strerror(error)); return 1; }
    int s = socket(found->ai_family, SOCK_STREAM, 0);
    if (connect(s, found->ai_addr, found->ai_addrlen)) { perror("connect"); return 1; }
    struct sockaddr_in peer; socklen_t length = sizeof peer;
    getpeername(s, (struct sockaddr *)&peer, &length);
    fprintf(stderr, "%s:%d\n", inet_ntoa(peer.sin_addr), ntohs(peer.sin_port));
    struct pollfd ends[2] = {{.fd = 0, .events = POLLIN}, {.fd = s, .events = POLLIN}};
    char buffer[65536];
    while (poll(ends, 2, 30000) > 0)
        for (int i = 0; i < 2; i++)
            if (ends[i].revents) {
                ssize_t n = read(ends[i].fd, buffer, sizeof buffer);
                if (n <= 0 || write(i ? 1 : s, buffer, n) != n) return 0;
            }
    return 0;
}
