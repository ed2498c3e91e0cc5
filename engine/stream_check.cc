#include "godwit/stream_check.h"

#include <absl/strings/str_cat.h>

#include <utility>

#include "base/status_macros.h"
#include "vfio/stream_format.h"

namespace godwit {
namespace {

class FormatCheck final : public StreamCheck, StreamSink {
 public:
  explicit FormatCheck(StreamFormat format)
      : format_(format), parser_(StreamParser::Make(format, *this)) {}

  absl::Status Feed(absl::Span<const std::byte> bytes) override {
    if (status_.ok()) parser_->Feed(bytes);
    return status_;
  }
  absl::Status End() override {
    if (status_.ok()) parser_->Finish();
    return status_;
  }

 private:
  // A header is enough to refuse a record: its payload need not have come yet.
  void OnHeader(const StreamRecord& record) override { Judge(record); }
  void OnRecord(const StreamRecord& record) override { Judge(record); }

  void Judge(const StreamRecord& record) {
    if (record.problem.empty() || !status_.ok()) return;
    status_ = absl::InvalidArgumentError(
        absl::StrCat("the stream is not one for ", StreamFormatName(format_), ": ",
                     StreamRecordName(record), ": ", record.problem));
  }

  const StreamFormat format_;
  absl::Status status_;
  const std::unique_ptr<StreamParser> parser_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<StreamCheck>> MakeStreamCheck(absl::string_view profile) {
  GODWIT_ASSIGN_OR_RETURN(const StreamFormat format, ParseStreamFormat(profile));
  return std::make_unique<FormatCheck>(format);
}

std::string StreamCheckProfiles() { return StreamFormatNames(); }

}  // namespace godwit
