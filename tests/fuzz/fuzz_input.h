// What all fuzz targets share: how an input is read.
#ifndef GODWIT_TESTS_FUZZ_FUZZ_INPUT_H_
#define GODWIT_TESTS_FUZZ_FUZZ_INPUT_H_

#include <absl/strings/string_view.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

// What libFuzzer, or replay.cc, calls with each input.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace godwit::fuzz {

// Reads an input from its front; past the end everything is 0 or empty, so that an input that was
// cut anywhere is one, too.
class FuzzInput {
 public:
  FuzzInput(const uint8_t* data, size_t size) : left_(reinterpret_cast<const char*>(data), size) {}

  bool empty() const { return left_.empty(); }
  uint8_t Byte() {
    const absl::string_view byte = Take(1);
    return byte.empty() ? uint8_t{0} : static_cast<uint8_t>(byte[0]);
  }
  size_t Number16() {
    const size_t high = Byte();
    return high << 8 | Byte();
  }
  // As many as there are.
  absl::string_view Take(size_t bytes) {
    const absl::string_view taken = left_.substr(0, bytes);
    left_.remove_prefix(taken.size());
    return taken;
  }
  absl::string_view Rest() { return Take(left_.size()); }

  // A count and as many lengths: where a stream is to be cut. A length of 0 is one of 1.
  std::vector<size_t> Cuts() {
    std::vector<size_t> lengths(Byte() % 16);
    for (size_t& length : lengths) length = std::max<size_t>(Byte(), 1);
    return lengths;
  }

 private:
  absl::string_view left_;
};

// Calls `feed` with `bytes` in pieces of those lengths; what they leave is the last piece.
template <typename Feed>
void InPieces(absl::string_view bytes, const std::vector<size_t>& lengths, const Feed& feed) {
  for (const size_t length : lengths) {
    if (bytes.empty()) return;
    feed(bytes.substr(0, length));
    bytes.remove_prefix(std::min(length, bytes.size()));
  }
  if (!bytes.empty()) feed(bytes);
}

}  // namespace godwit::fuzz

#endif  // GODWIT_TESTS_FUZZ_FUZZ_INPUT_H_
