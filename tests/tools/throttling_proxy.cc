// throttling_proxy TARGET_PORT MEGABYTES_A_SECOND…: a network between a source and a target whose
// paths are not equally fast.
//
// Listens on a free port of 127.0.0.1 and prints it; carries every connection to TARGET_PORT of the
// same host and back. A lane is held to the rate for its number, in 10^6 bytes a second; the last
// rate is also that of all lanes behind it. Everything else goes as fast as it can. Runs until it
// is killed.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "tests/tools/proxy.h"

namespace {

using Clock = std::chrono::steady_clock;

// What a path holds at most, so that its rate is what a lane feels, and not the sockets' room.
constexpr int kSocketBytes = 256 << 10;
// A path that was idle, or whose thread was late, makes up for that much.
constexpr std::chrono::milliseconds kLateMax{5};

}  // namespace

int main(int argc, char** argv) {
  namespace proxy = godwit::proxy;
  if (argc < 3) {
    std::fputs("usage: throttling_proxy TARGET_PORT MEGABYTES_A_SECOND...\n", stderr);
    return 2;
  }
  const auto port = static_cast<uint16_t>(std::atoi(argv[1]));
  std::vector<double> rates;
  for (int i = 2; i < argc; ++i) rates.push_back(std::atof(argv[i]) * 1e6);
  return proxy::Run("throttling_proxy", port, kSocketBytes, [&rates](int source, int target) {
    const auto lane = proxy::LaneNumber(source);
    Clock::time_point due = Clock::now();
    proxy::Carry(source, target, [&](char* /*bytes*/, size_t count) {
      if (!lane.has_value()) return;
      const double bytes_a_second = rates[std::min(*lane, rates.size() - 1)];
      due = std::max(due, Clock::now() - kLateMax);
      due += std::chrono::duration_cast<Clock::duration>(
          std::chrono::duration<double>(static_cast<double>(count) / bytes_a_second));
      std::this_thread::sleep_until(due);
    });
  });
}
