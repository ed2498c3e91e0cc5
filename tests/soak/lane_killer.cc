#include "tests/soak/lane_killer.h"

#include <absl/strings/str_cat.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "tests/soak/resource_counts.h"

namespace godwit {
namespace {

// The inodes of sockets here that are connected to `port`, and their fds: the source's ends.
std::vector<std::pair<std::string, int>> SocketsTo(uint16_t port) {
  std::vector<std::pair<std::string, int>> sockets;
  for (const std::string& name : Entries("/proc/self/fd")) {
    const int fd = std::atoi(name.c_str());
    sockaddr_in peer = {};
    socklen_t length = sizeof(peer);
    if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) != 0) continue;
    if (peer.sin_family != AF_INET || ntohs(peer.sin_port) != port) continue;
    char inode[64] = {};
    if (::readlink(absl::StrCat("/proc/self/fd/", fd).c_str(), inode, sizeof(inode) - 1) <= 0) {
      continue;
    }
    sockets.emplace_back(inode, fd);
  }
  return sockets;
}

}  // namespace

void LaneKiller::Run(uint16_t port, uint64_t seed, uint64_t every_ms_max) {
  std::mt19937_64 random(seed);
  std::vector<std::pair<std::string, int>> sockets;
  while (!over_ && (sockets = SocketsTo(port)).empty()) std::this_thread::yield();
  if (sockets.size() != 1) return;
  const std::string control = sockets[0].first;
  while (!over_) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1 + random() % every_ms_max));
    sockets = SocketsTo(port);
    std::erase_if(sockets, [&](const auto& socket) { return socket.first == control; });
    if (sockets.empty()) continue;
    if (::shutdown(sockets[random() % sockets.size()].second, SHUT_RDWR) == 0) ++killed_;
  }
}

}  // namespace godwit
