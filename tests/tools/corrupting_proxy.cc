// corrupting_proxy TARGET_PORT LANES AFTER_BYTES: a network between a source and a target that
// damages what it carries, in a way that TCP's checksum does not see.
//
// Listens on a free port of 127.0.0.1 and prints it; carries every connection to TARGET_PORT of the
// same host and back. On the first LANES of them that are lanes one bit of one byte is flipped,
// AFTER_BYTES from the source's first on. Prints a line for each. Runs until it is killed.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>

namespace {

constexpr std::string_view kLanePreface = "GODWITLN";

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

bool SendAll(int to, const char* bytes, size_t count) {
  while (count > 0) {
    const ssize_t sent = ::send(to, bytes, count, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes += sent;
    count -= static_cast<size_t>(sent);
  }
  return true;
}

// Until one end closes; then the other hears of it. `damage_at`: counted from the first byte; none
// where it is negative.
void Carry(int from, int to, int64_t damage_at) {
  std::array<char, 65536> bytes;
  int64_t carried = 0;
  while (true) {
    const ssize_t got = ::recv(from, bytes.data(), bytes.size(), 0);
    if (got <= 0) break;
    if (damage_at >= carried && damage_at < carried + got) {
      bytes[static_cast<size_t>(damage_at - carried)] ^= 0x10;
      std::printf("flipped a bit of byte %lld\n", static_cast<long long>(damage_at));
      std::fflush(stdout);
    }
    if (!SendAll(to, bytes.data(), static_cast<size_t>(got))) break;
    carried += got;
  }
  ::shutdown(from, SHUT_RDWR);
  ::shutdown(to, SHUT_RDWR);
}

void Connect(int source, uint16_t port, std::atomic<long>& lanes_left, int64_t after_bytes) {
  const int target = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = Loopback(port);
  if (::connect(target, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    std::array<char, kLanePreface.size()> first;
    const bool lane = ::recv(source, first.data(), first.size(), MSG_PEEK | MSG_WAITALL) ==
                          static_cast<ssize_t>(first.size()) &&
                      std::string_view(first.data(), first.size()) == kLanePreface;
    const bool damaged = lane && lanes_left.fetch_sub(1) > 0;
    std::thread back(Carry, target, source, -1);
    Carry(source, target, damaged ? after_bytes : -1);
    back.join();
  }
  ::close(source);
  ::close(target);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: corrupting_proxy TARGET_PORT LANES AFTER_BYTES\n", stderr);
    return 2;
  }
  const auto port = static_cast<uint16_t>(std::atoi(argv[1]));
  std::atomic<long> lanes_left{std::atol(argv[2])};
  const int64_t after_bytes = std::atoll(argv[3]);
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(0);
  socklen_t length = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  if (::bind(listener, any, length) != 0 || ::listen(listener, 64) != 0 ||
      ::getsockname(listener, any, &length) != 0) {
    std::perror("corrupting_proxy");
    return 1;
  }
  std::printf("%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  while (true) {
    const int source = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (source < 0) return 1;
    std::thread([source, port, &lanes_left, after_bytes] {
      Connect(source, port, lanes_left, after_bytes);
    }).detach();
  }
}
