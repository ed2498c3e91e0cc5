// Drivers' streams written down by hand, as the kernel's structures have them.
#ifndef GODWIT_TESTS_VFIO_STREAM_IMAGES_H_
#define GODWIT_TESTS_VFIO_STREAM_IMAGES_H_

#include <absl/strings/string_view.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace godwit::image {

inline std::string Little(uint64_t value, size_t bytes) {
  std::string text;
  for (size_t i = 0; i < bytes; ++i, value >>= 8) text.push_back(static_cast<char>(value & 0xff));
  return text;
}

// mlx5 and virtio.
inline std::string Record(uint32_t tag, uint32_t flags, absl::string_view payload) {
  return Little(payload.size(), 8) + Little(flags, 4) + Little(tag, 4) + std::string(payload);
}
inline std::string Part(uint16_t type, uint8_t flags, uint64_t selector, absl::string_view value) {
  return Little(type, 2) + Little(flags, 1) + Little(0, 1) + Little(selector, 8) +
         Little(value.size(), 4) + std::string(value);
}
inline std::string Mlx5() {
  return Record(1, 1, Little(4096, 8)) + Record(0, 0, std::string(100, 'F')) +
         Record(0x77, 1, "for later") + Record(0, 0, std::string(33, 'G'));
}
inline std::string VirtioParts() {
  return Part(0x100, 1, 0, std::string(16, 'd')) + Part(0x101, 0, 0, std::string(16, 'D')) +
         Part(0x102, 0, 16, "\x03") + Part(0x103, 0, 0, "\x0f") +
         Part(0x104, 0, 1, std::string(32, 'q')) + Part(0x105, 1, 1, std::string(8, 'n')) +
         Part(0x200, 0, 0, "content");
}
inline std::string Virtio() {
  return Record(0, 0, VirtioParts()) + Record(9, 1, "skip me") + Record(0, 0, VirtioParts());
}

inline std::string MttyHeader(uint32_t major, uint32_t ports) {
  return Little(0x7e9d09898c3e2c4e, 8) + Little(major, 4) + Little(0, 4) + Little(ports, 4) +
         Little(0, 4);
}
inline std::string Mtty() { return MttyHeader(1, 2) + std::string(72, 'p'); }

inline std::string QatSection(absl::string_view id, absl::string_view content) {
  std::string text(id);
  text.resize(8);
  return text + Little(content.size(), 4) + Little(0, 4) + std::string(content);
}
inline std::string QatPreamble(uint32_t version, uint16_t sections, size_t bytes) {
  return Little(0xadf5caea, 4) + Little(version, 4) + Little(16, 2) + Little(sections, 2) +
         Little(bytes, 4);
}
inline std::string Qat() {
  const std::string sections = QatSection("CONFIG", std::string(40, 'c')) +
                               QatSection("ETRBAR", std::string(200, 'e')) +
                               QatSection("GENER", "");
  std::string text = QatPreamble(1, 3, sections.size()) + sections;
  text.resize(4096);
  return text;
}

inline std::string XePacket(uint8_t type, uint64_t offset, absl::string_view payload,
                            uint8_t version = 1) {
  return Little(version, 1) + Little(type, 1) + Little(0, 1) + Little(1, 1) + Little(0, 4) +
         Little(offset, 8) + Little(payload.size(), 8) + std::string(payload);
}
inline std::string Xe() {
  return XePacket(1, 0, std::string(16, 'k')) + XePacket(3, 0, std::string(64, 'g')) +
         XePacket(6, 0, std::string(300, 'v')) + XePacket(6, 300, "v") + XePacket(2, 0, "");
}

inline std::string Hisi(uint64_t magic = 0xaaccfeeddecadede, uint16_t major = 1) {
  std::string text = Little(magic, 8) + Little(256, 4) + Little(0xa251, 4) + Little(0, 4) +
                     Little(512, 4) + Little(1, 4) + Little(major, 2) + Little(0, 2) + Little(0, 8);
  text.append(136, 'h');
  return text;
}

}  // namespace godwit::image

#endif  // GODWIT_TESTS_VFIO_STREAM_IMAGES_H_
