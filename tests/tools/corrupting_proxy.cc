// corrupting_proxy TARGET_PORT LANES AFTER_BYTES: a network between a source and a target that
// damages what it carries, in a way that TCP's checksum does not see.
//
// Listens on a free port of 127.0.0.1 and prints it; carries every connection to TARGET_PORT of the
// same host and back. On the first LANES of them that are lanes one bit of one byte is flipped,
// AFTER_BYTES from the source's first on. Prints a line for each. Runs until it is killed.

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tests/tools/proxy.h"

int main(int argc, char** argv) {
  namespace proxy = godwit::proxy;
  if (argc != 4) {
    std::fputs("usage: corrupting_proxy TARGET_PORT LANES AFTER_BYTES\n", stderr);
    return 2;
  }
  const auto port = static_cast<uint16_t>(std::atoi(argv[1]));
  std::atomic<long> lanes_left{std::atol(argv[2])};
  const auto after_bytes = static_cast<uint64_t>(std::atoll(argv[3]));
  return proxy::Run("corrupting_proxy", port, /*socket_bytes=*/0,
                    [&lanes_left, after_bytes](int source, int target) {
                      const bool damaged =
                          proxy::LaneNumber(source).has_value() && lanes_left.fetch_sub(1) > 0;
                      uint64_t carried = 0;
                      proxy::Carry(source, target, [&](char* bytes, size_t count) {
                        if (damaged && after_bytes >= carried && after_bytes < carried + count) {
                          bytes[after_bytes - carried] ^= 0x10;
                          std::printf("flipped a bit of byte %llu\n",
                                      static_cast<unsigned long long>(after_bytes));
                          std::fflush(stdout);
                        }
                        carried += count;
                      });
                    });
}
