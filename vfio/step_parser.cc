#include "vfio/step_parser.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace godwit {

void StepParser::Feed(absl::Span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (expect_end_ || (skip_rest_ && position_ - step_at_ == rest_max_)) {
      if (!expect_end_) open_->payload_bytes = rest_max_;
      expect_end_ = false;
      SkipRest("there are more bytes than the state has");
    }
    size_t taken = 0;
    if (head_wanted_ > 0) {
      taken = std::min(bytes.size(), head_wanted_ - head_bytes_);
      std::memcpy(head_.data() + head_bytes_, bytes.data(), taken);
      head_bytes_ += taken;
    } else {
      const uint64_t left = skip_rest_ ? rest_max_ - (position_ - step_at_) : skip_left_;
      taken = static_cast<size_t>(std::min<uint64_t>(bytes.size(), left));
      std::string& first = open_->first_bytes;
      const size_t kept = std::min(taken, StreamRecord::kFirstBytes - first.size());
      first.append(reinterpret_cast<const char*>(bytes.data()), kept);
      if (!skip_rest_) skip_left_ -= taken;
    }
    position_ += taken;
    bytes.remove_prefix(taken);
    if (head_wanted_ > 0 && head_bytes_ == head_wanted_) {
      head_wanted_ = 0;
      OnHead(absl::MakeConstSpan(head_.data(), head_bytes_));
    } else if (head_wanted_ == 0 && !skip_rest_ && !expect_end_ && skip_left_ == 0) {
      OnSkipped();
    }
  }
}

void StepParser::Finish() {
  if (expect_end_) {
    // as it should be
  } else if (head_wanted_ > 0) {
    Close();
    FinishInHead();
  } else if (skip_rest_) {
    open_->payload_bytes = position_ - step_at_;
  } else if (open_.has_value()) {
    absl::StrAppend(&open_->problem, open_->problem.empty() ? "" : "; ",
                    absl::StrFormat("the stream ends in it: %u of its %u bytes are there",
                                    position_ - step_at_, open_->payload_bytes));
  }
  const bool empty_rest = skip_rest_ && open_->payload_bytes == 0 && open_->problem.empty();
  if (!empty_rest) Close();
}

void StepParser::FinishInHead() {
  if (head_bytes_ == 0 && MayEnd()) return;
  StreamRecord cut;
  cut.kind = "bytes";
  cut.payload_bytes = head_bytes_;
  cut.first_bytes.assign(reinterpret_cast<const char*>(head_.data()),
                         std::min(head_bytes_, StreamRecord::kFirstBytes));
  cut.problem = head_bytes_ == 0
                    ? absl::StrCat("the stream ends before ", what_)
                    : absl::StrFormat("the stream ends in %s: %u of its %u bytes are there", what_,
                                      head_bytes_, head_wanted_);
  Begin(std::move(cut));
}

void StepParser::Collect(size_t bytes, absl::string_view what) {
  GODWIT_CHECK(bytes > 0 && bytes <= kHeadBytesMax);
  step_at_ = position_;
  head_bytes_ = 0;
  head_wanted_ = bytes;
  what_ = what;
}

void StepParser::Begin(StreamRecord record) {
  Close();
  record.offset = step_at_;
  record.index = counts_[record.depth]++;
  if (record.depth == 0) counts_[1] = 0;
  open_ = std::move(record);
  sink_.OnHeader(*open_);
}

void StepParser::Skip(uint64_t bytes) {
  GODWIT_CHECK(open_.has_value());
  step_at_ = position_;
  skip_left_ = bytes;
  if (bytes == 0) OnSkipped();
}

void StepParser::SkipAs(absl::string_view kind, absl::string_view name, uint64_t bytes,
                        uint32_t depth, absl::string_view problem) {
  step_at_ = position_;
  StreamRecord record;
  record.kind = kind;
  record.name = std::string(name);
  record.depth = depth;
  record.payload_bytes = bytes;
  record.problem = std::string(problem);
  Begin(std::move(record));
  Skip(bytes);
}

void StepParser::SkipRest(absl::string_view problem, uint64_t bytes_max) {
  step_at_ = position_;
  skip_rest_ = true;
  rest_max_ = bytes_max;
  StreamRecord record;
  record.kind = "bytes";
  record.problem = std::string(problem);
  Begin(std::move(record));
}

void StepParser::Close() {
  if (!open_.has_value()) return;
  const StreamRecord record = *std::exchange(open_, std::nullopt);
  sink_.OnRecord(record);
}

}  // namespace godwit
