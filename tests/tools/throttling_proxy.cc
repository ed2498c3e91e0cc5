// throttling_proxy TARGET_PORT MEGABYTES_A_SECOND…: a network between a source and a target whose
// paths are not equally fast.
//
// Listens on a free port of 127.0.0.1 and prints it; carries every connection to TARGET_PORT of the
// same host and back. A lane is held to the rate for its number, in 10^6 bytes a second; the last
// rate is also that of all lanes behind it. Everything else goes as fast as it can. Runs until it
// is killed.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::string_view kLanePreface = "GODWITLN";
// The preface: those, session id, generation, number (2 bytes each, big-endian).
constexpr size_t kPrefaceBytes = 28;
constexpr size_t kNumberAt = 26;
// What a path holds at most, so that its rate is what a lane feels, and not the sockets' room.
constexpr int kSocketBytes = 256 << 10;
// A path that was idle, or whose thread was late, makes up for that much.
constexpr std::chrono::milliseconds kLateMax{5};

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

// Until one end closes; then the other hears of it. `bytes_a_second`: 0 is as fast as it can.
void Carry(int from, int to, double bytes_a_second) {
  std::array<char, 65536> bytes;
  Clock::time_point due = Clock::now();
  while (true) {
    const ssize_t got = ::recv(from, bytes.data(), bytes.size(), 0);
    if (got <= 0) break;
    if (bytes_a_second > 0) {
      due = std::max(due, Clock::now() - kLateMax);
      due += std::chrono::duration_cast<Clock::duration>(
          std::chrono::duration<double>(static_cast<double>(got) / bytes_a_second));
      std::this_thread::sleep_until(due);
    }
    if (!SendAll(to, bytes.data(), static_cast<size_t>(got))) break;
  }
  ::shutdown(from, SHUT_RDWR);
  ::shutdown(to, SHUT_RDWR);
}

double RateOf(int source, const std::vector<double>& rates) {
  std::array<char, kPrefaceBytes> first;
  if (::recv(source, first.data(), first.size(), MSG_PEEK | MSG_WAITALL) !=
          static_cast<ssize_t>(first.size()) ||
      std::string_view(first.data(), kLanePreface.size()) != kLanePreface) {
    return 0;
  }
  const size_t number = static_cast<size_t>(static_cast<unsigned char>(first[kNumberAt])) << 8 |
                        static_cast<unsigned char>(first[kNumberAt + 1]);
  return rates[std::min(number, rates.size() - 1)];
}

void Connect(int source, uint16_t port, const std::vector<double>& rates) {
  const int target = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ::setsockopt(target, SOL_SOCKET, SO_SNDBUF, &kSocketBytes, sizeof(kSocketBytes));
  const sockaddr_in address = Loopback(port);
  if (::connect(target, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    // What the target says at the begin must not wait for what we want to see of the source.
    std::thread back(Carry, target, source, 0.0);
    Carry(source, target, RateOf(source, rates));
    back.join();
  }
  ::close(source);
  ::close(target);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fputs("usage: throttling_proxy TARGET_PORT MEGABYTES_A_SECOND...\n", stderr);
    return 2;
  }
  const auto port = static_cast<uint16_t>(std::atoi(argv[1]));
  std::vector<double> rates;
  for (int i = 2; i < argc; ++i) rates.push_back(std::atof(argv[i]) * 1e6);
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  // Connections inherit it.
  ::setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &kSocketBytes, sizeof(kSocketBytes));
  sockaddr_in address = Loopback(0);
  socklen_t length = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  if (::bind(listener, any, length) != 0 || ::listen(listener, 64) != 0 ||
      ::getsockname(listener, any, &length) != 0) {
    std::perror("throttling_proxy");
    return 1;
  }
  std::printf("%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  while (true) {
    const int source = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (source < 0) return 1;
    std::thread([source, port, &rates] { Connect(source, port, rates); }).detach();
  }
}
