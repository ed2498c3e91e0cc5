// What a source of one small software device sends, byte for byte.
#ifndef GODWIT_TESTS_ENGINE_RIGHT_STREAM_H_
#define GODWIT_TESTS_ENGINE_RIGHT_STREAM_H_

#include <absl/types/span.h>

#include <string>
#include <vector>

#include "tests/engine/wire_image.h"
#include "vfio/soft_content.h"

namespace godwit {

inline constexpr uint64_t kSeed = 7;
inline constexpr size_t kStreamBytes = 16;  // two packets of eight
inline constexpr char kSpec[] = "soft:size=16,seed=7";
inline constexpr char kConfig[] = "godwit-soft 1 size=16 seed=7";

inline std::string TheStream() {
  std::string bytes(kStreamBytes, '\0');
  SoftContent(kSeed).Fill(0,
                          absl::MakeSpan(reinterpret_cast<std::byte*>(bytes.data()), bytes.size()));
  return bytes;
}

// The right frames, in order, for lane 0.
inline std::vector<wire::Frame> TheFrames() {
  const std::string stream = TheStream();
  std::vector<wire::Frame> frames = {
      wire::DataFrame(0, 0, "", stream.substr(0, 8)),
      wire::DataFrame(0, 1, stream.substr(0, 8), stream.substr(8)),
      wire::ConfigFrame(0, 2, stream, kConfig),
  };
  for (size_t i = 0; i < frames.size(); ++i) frames[i].lane_sequence = i;
  return frames;
}

inline std::string OnTheWire(const std::vector<wire::Frame>& frames) {
  std::string bytes;
  for (const wire::Frame& frame : frames) bytes += wire::WithLength(wire::Encode(frame));
  return bytes;
}

}  // namespace godwit

#endif  // GODWIT_TESTS_ENGINE_RIGHT_STREAM_H_
