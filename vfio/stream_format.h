// What drivers' state streams look like: parsers that take a stream apart record by record.
//
// Sources of the layouts, all integers little-endian: Linux 6.12 and newer, drivers/vfio/pci
// (mlx5, virtio, hisilicon, qat, xe) with the files that define their streams in drivers/crypto and
// drivers/gpu/drm/xe, samples/vfio-mdev/mtty.c, and virtio 1.4, "Device parts". docs/command.md,
// "Stream formats", has them in a table.
#ifndef GODWIT_VFIO_STREAM_FORMAT_H_
#define GODWIT_VFIO_STREAM_FORMAT_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/types/span.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace godwit {

enum class StreamFormat { kRaw, kMlx5, kVirtio, kMtty, kQat, kXe, kHisi, kPds };

absl::string_view StreamFormatName(StreamFormat format);  // "raw", "mlx5", …
// "raw, mlx5, …"
std::string StreamFormatNames();
// InvalidArgument that lists the names.
absl::StatusOr<StreamFormat> ParseStreamFormat(absl::string_view name);

inline constexpr uint64_t kMttyMagic = 0x7e9d09898c3e2c4e;
inline constexpr uint32_t kMttyMajorVersion = 1;
inline constexpr size_t kMttyHeaderBytes = 24;
inline constexpr uint64_t kMttyPortBytes = 36;
inline constexpr uint32_t kMttyPortsMax = 2;

inline constexpr uint32_t kQatMagic = 0xadf5caea;
inline constexpr uint32_t kQatVersion = 1;
inline constexpr uint64_t kQatBytes = 4096;
inline constexpr size_t kQatPreambleBytes = 16;
inline constexpr size_t kQatSectionHeaderBytes = 16;
inline constexpr size_t kQatIdBytes = 8;

inline constexpr uint8_t kXeVersion = 1;
inline constexpr size_t kXeHeaderBytes = 24;

inline constexpr uint64_t kHisiMagicV1 = 0xcdcdcdcdfeedaacc;
inline constexpr uint64_t kHisiMagicV2 = 0xaaccfeeddecadede;
inline constexpr uint16_t kHisiMajorVersion = 1;
inline constexpr size_t kHisiMatchBytes = 40;
inline constexpr uint64_t kHisiBytes = 176;

inline constexpr uint64_t kPdsBytesMax = 64 * 1024;

// One field of a record's header.
struct StreamField {
  absl::string_view name;  // a literal
  uint64_t value = 0;
  bool hex = false;  // how people read it
};

struct StreamRecord {
  absl::string_view kind;      // "record", "part", "header", "port", …; "bytes": of no known form
  uint32_t depth = 0;          // 1: lies inside the last record of depth 0
  uint64_t index = 0;          // among its siblings of the same kind
  uint64_t offset = 0;         // in the stream, of its first byte
  uint64_t header_bytes = 0;   // that have a form, or 0
  uint64_t payload_bytes = 0;  // as its header says; of "bytes": as many as came
  std::string name;            // what its tag or type means; "" where nobody knows
  std::vector<StreamField> fields;
  std::string first_bytes;  // of the payload, at most kFirstBytes; none of a record with parts
  std::string problem;      // why its driver would refuse it or the stream can't be right; "": none

  static constexpr size_t kFirstBytes = 16;
};

// "record 3 at byte 4096"
std::string StreamRecordName(const StreamRecord& record);

// Is told of records in stream order.
class StreamSink {
 public:
  virtual ~StreamSink() = default;
  // Its header is known, nothing of its payload yet.
  virtual void OnHeader(const StreamRecord& /*record*/) {}
  // All of it has passed, or the stream has ended in it.
  virtual void OnRecord(const StreamRecord& record) = 0;
};

// Takes one stream apart, whatever pieces it comes in.
//
// Ownership: borrows the sink. Holds one record's header and never a payload: bounded memory.
// Threads:   single-threaded.
// Blocking:  never.
// Errors:    none of its own: what is wrong with a stream stands in the records' `problem`. Bytes
//            after which nothing can be made out become one last record of kind "bytes".
class StreamParser {
 public:
  static std::unique_ptr<StreamParser> Make(StreamFormat format, StreamSink& sink);
  virtual ~StreamParser() = default;
  StreamParser(const StreamParser&) = delete;
  StreamParser& operator=(const StreamParser&) = delete;

  virtual void Feed(absl::Span<const std::byte> bytes) = 0;
  // The stream ends here. REQUIRES: called once, nothing is fed after it
  virtual void Finish() = 0;

 protected:
  StreamParser() = default;
};

// What a stream that begins with `prefix` looks like. Magics are certain; mlx5 and virtio, which
// have none, are told by whether their first headers make sense. Nothing: bytes of no known form.
// More than kRecogniseBytes of prefix change nothing.
std::optional<StreamFormat> RecogniseStream(absl::Span<const std::byte> prefix);
inline constexpr size_t kRecogniseBytes = 4096;

}  // namespace godwit

#endif  // GODWIT_VFIO_STREAM_FORMAT_H_
