// A device's state stream, taken apart as each driver's in turn: what is found in it, and whether
// it is refused, does not depend on the pieces in which it comes.
//
// Input: cuts (fuzz_input.h), a byte that says how many KiB of zeros end the stream where its
// length counts (qat, pds), the stream.
#include <absl/strings/str_cat.h>
#include <absl/types/span.h>

#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "godwit/stream_check.h"
#include "tests/fuzz/fuzz_input.h"
#include "vfio/soft_framing.h"
#include "vfio/stream_format.h"
#include "vfio/virtio_parts.h"

namespace godwit::fuzz {
namespace {

constexpr std::array<StreamFormat, 8> kFormats = {
    StreamFormat::kRaw, StreamFormat::kMlx5, StreamFormat::kVirtio, StreamFormat::kMtty,
    StreamFormat::kQat, StreamFormat::kXe,   StreamFormat::kHisi,   StreamFormat::kPds};
constexpr uint64_t kSeed = 3;  // of the software devices' content, as in make_seeds.cc

absl::Span<const std::byte> AsBytes(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string Text(const StreamRecord& record) {
  std::string text =
      absl::StrCat(StreamRecordName(record), " depth ", record.depth, " header ",
                   record.header_bytes, " payload ", record.payload_bytes, " name ", record.name,
                   " first ", record.first_bytes, " problem ", record.problem);
  for (const StreamField& field : record.fields) absl::StrAppend(&text, " ", field.value);
  return text;
}

// Keeps what it is told, and holds the parser to its order.
class Recorder final : public StreamSink {
 public:
  void OnHeader(const StreamRecord& record) override {
    GODWIT_CHECK(record.depth <= 1 && record.offset >= offset_);
    offset_ = record.offset;
    GODWIT_CHECK(!open_);
    open_ = true;
    may_stay_open_ = record.kind == "bytes" && record.problem.empty();
    events_.push_back("header " + Text(record));
  }
  void OnRecord(const StreamRecord& record) override {
    GODWIT_CHECK(open_ && record.offset == offset_);
    GODWIT_CHECK(record.first_bytes.size() <= StreamRecord::kFirstBytes);
    open_ = false;
    refused_ |= !record.problem.empty();
    events_.push_back("record " + Text(record));
    if (record.depth == 0) bytes_ += record.header_bytes;
    if (record.depth == 0 && record.name != "DEVICE_DATA") bytes_ += record.payload_bytes;
    if (record.depth == 1) bytes_ += record.header_bytes + record.payload_bytes;
  }

  const std::vector<std::string>& events() const { return events_; }
  // A record is begun that was never told of; the rest of a stream has none if it is empty.
  bool lacks_record() const { return open_ && !may_stay_open_; }
  bool refused() const { return refused_; }
  uint64_t bytes() const { return bytes_; }  // of all records; mlx5 and virtio: see there

 private:
  std::vector<std::string> events_;
  uint64_t offset_ = 0;
  uint64_t bytes_ = 0;
  bool open_ = false;
  bool may_stay_open_ = false;
  bool refused_ = false;
};

Recorder Parse(StreamFormat format, absl::string_view stream, const std::vector<size_t>& cuts) {
  Recorder recorder;
  const std::unique_ptr<StreamParser> parser = StreamParser::Make(format, recorder);
  InPieces(stream, cuts, [&](absl::string_view piece) { parser->Feed(AsBytes(piece)); });
  parser->Finish();
  GODWIT_CHECK(!recorder.lacks_record());
  return recorder;
}

absl::Status Judge(StreamFormat format, absl::string_view stream, const std::vector<size_t>& cuts) {
  const auto check = MakeStreamCheck(StreamFormatName(format)).value();
  absl::Status first;
  InPieces(stream, cuts, [&](absl::string_view piece) {
    const absl::Status status = check->Feed(AsBytes(piece));
    GODWIT_CHECK(first.ok() || status == first);
    first = status;
  });
  const absl::Status end = check->End();
  GODWIT_CHECK(first.ok() || end == first);
  return end;
}

void CheckFormat(StreamFormat format, absl::string_view stream, const std::vector<size_t>& cuts) {
  const Recorder whole = Parse(format, stream, {});
  GODWIT_CHECK(Parse(format, stream, cuts).events() == whole.events());
  const absl::Status verdict = Judge(format, stream, {});
  GODWIT_CHECK(verdict.ok() == !whole.refused());
  GODWIT_CHECK(Judge(format, stream, cuts) == verdict);
  // Nothing of a stream that is right is left out.
  GODWIT_CHECK(whole.refused() || whole.bytes() == stream.size());
  constexpr size_t kByteByByteMax = 128;
  if (stream.size() > kByteByByteMax) return;
  const std::vector<size_t> ones(stream.size(), 1);
  GODWIT_CHECK(Parse(format, stream, ones).events() == whole.events());
  GODWIT_CHECK(Judge(format, stream, ones) == verdict);
}

void CheckParts(absl::string_view record) {
  const auto parts = ParseVirtioParts(record);
  if (parts.ok()) {
    std::string again;
    for (const VirtioPart& part : *parts) AppendVirtioPart(part, again);
    GODWIT_CHECK(again == record);
  }
  const auto content = CheckVirtioContext(record);
  if (!content.ok()) return;
  GODWIT_CHECK(parts.ok());
  GODWIT_CHECK(content->empty() ||
               (content->data() >= record.data() &&
                content->data() + content->size() <= record.data() + record.size()));
}

// What a software device makes of it. (Its messages name pieces.)
struct Load {
  absl::StatusCode taken = absl::StatusCode::kOk;
  absl::StatusCode verdict = absl::StatusCode::kOk;
  bool complete = false;

  friend bool operator==(const Load&, const Load&) = default;
};
Load LoadSoft(const SoftImage& image, absl::string_view stream, const std::vector<size_t>& cuts) {
  SoftDecoder decoder(image);
  Load load;
  absl::Status taken;
  InPieces(stream, cuts, [&](absl::string_view piece) {
    const absl::Status status = decoder.Take(piece);
    GODWIT_CHECK(taken.ok() || status == taken);
    taken = status;
  });
  const absl::Status verdict = decoder.Finish();
  GODWIT_CHECK(taken.ok() || verdict == taken);
  load.taken = taken.code();
  load.verdict = verdict.code();
  load.complete = decoder.complete();
  GODWIT_CHECK(!load.complete || verdict.ok());
  return load;
}

void CheckSoftDevices(absl::string_view stream, const std::vector<size_t>& cuts) {
  static const SoftContent content(kSeed);
  static const std::array<SoftImage, 7> images = {
      {{SoftProfile::kMlx5, 300, content},
       {SoftProfile::kHisi, TraitsOf(SoftProfile::kHisi).size_max, content},
       {SoftProfile::kPds, 300, content},
       {SoftProfile::kQat, TraitsOf(SoftProfile::kQat).size_max, content},
       {SoftProfile::kVirtio, 300, content},
       {SoftProfile::kXe, 300, content},
       {SoftProfile::kMtty, TraitsOf(SoftProfile::kMtty).size_default, content}}};
  for (const SoftImage& image : images) {
    GODWIT_CHECK(LoadSoft(image, stream, cuts) == LoadSoft(image, stream, {}));
  }
}

void Run(FuzzInput input) {
  const std::vector<size_t> cuts = input.Cuts();
  const size_t zeros = size_t{input.Byte()} % 66 * 1024;
  std::string stream(input.Rest());
  CheckParts(stream);
  const auto recognised = RecogniseStream(AsBytes(stream));
  GODWIT_CHECK(!recognised.has_value() || StreamFormatName(*recognised) != "?");
  CheckSoftDevices(stream, cuts);
  for (const StreamFormat format : kFormats) CheckFormat(format, stream, cuts);
  if (zeros == 0) return;
  stream.append(zeros, '\0');
  CheckFormat(StreamFormat::kQat, stream, cuts);
  CheckFormat(StreamFormat::kPds, stream, cuts);
}

}  // namespace
}  // namespace godwit::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  godwit::fuzz::Run({data, size});
  return 0;
}
