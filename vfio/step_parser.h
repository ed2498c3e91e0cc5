// The part of a stream parser that knows nothing of any format: collecting headers, skipping
// payloads, keeping count.
#ifndef GODWIT_VFIO_STEP_PARSER_H_
#define GODWIT_VFIO_STEP_PARSER_H_

#include <array>
#include <limits>
#include <optional>

#include "vfio/stream_format.h"

namespace godwit {

// A format is a sequence of steps: collect a header of known length, look at it, skip a payload,
// and so on. After each step the derived class says what comes next.
//
// Ownership, Threads, Blocking, Errors: as StreamParser.
class StepParser : public StreamParser {
 public:
  void Feed(absl::Span<const std::byte> bytes) final;
  void Finish() final;

 protected:
  static constexpr size_t kHeadBytesMax = 40;
  static constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

  explicit StepParser(StreamSink& sink) : sink_(sink) {}

  // ---- What a derived class does.
  // A header that was asked for is there; ends with a call of Collect() or Skip…().
  virtual void OnHead(absl::Span<const std::byte> head) = 0;
  // A payload has passed; ends with a call of Collect() or Skip…().
  virtual void OnSkipped() = 0;
  // Whether the stream may end between the last step and the next.
  virtual bool MayEnd() const = 0;

  // ---- What it may call.
  // Next: a header of `bytes`, 1 to kHeadBytesMax; `what` it is, for messages.
  void Collect(size_t bytes, absl::string_view what);
  // Reports the record whose header was collected. Its kind, name, fields, payload and problem are
  // the caller's; the rest is filled in here.
  void Begin(StreamRecord record);
  // Next: the payload of the record that was begun, as much as its payload_bytes.
  void SkipPayload() { Skip(open_->payload_bytes); }
  void Skip(uint64_t bytes);
  // Next: a record without a header.
  void SkipAs(absl::string_view kind, absl::string_view name, uint64_t bytes, uint32_t depth,
              absl::string_view problem);
  // Next: all the rest, in which nothing can be made out; past `bytes_max` it is too much. Without
  // a problem, and where there is no rest, it makes no record.
  void SkipRest(absl::string_view problem, uint64_t bytes_max = kNoLimit);
  // Next: nothing; bytes that come all the same are a problem.
  void ExpectEnd() { expect_end_ = true; }

  uint64_t position() const { return position_; }

 private:
  void Close();
  void FinishInHead();

  StreamSink& sink_;
  uint64_t position_ = 0;  // bytes that have passed
  uint64_t step_at_ = 0;   // where the step began
  std::array<std::byte, kHeadBytesMax> head_{};
  size_t head_bytes_ = 0;
  size_t head_wanted_ = 0;  // 0: skipping
  absl::string_view what_;
  uint64_t skip_left_ = 0;
  bool skip_rest_ = false;
  uint64_t rest_max_ = kNoLimit;
  bool expect_end_ = false;
  std::optional<StreamRecord> open_;  // begun, not yet given to OnRecord()
  std::array<uint64_t, 2> counts_{};  // records of each depth; of depth 1: in this one of depth 0
};

}  // namespace godwit

#endif  // GODWIT_VFIO_STEP_PARSER_H_
