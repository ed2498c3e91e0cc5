#include "vfio/soft_options.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>

#include <algorithm>
#include <array>
#include <limits>
#include <set>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "vfio/soft_profile_device.h"

namespace godwit {
namespace {

constexpr uint32_t kVirtioPrecopyCalls = 128;  // of the driver's first series
constexpr uint64_t kMlx5FirstReadBytes = 24;

constexpr absl::string_view kSoftKeys =
    "size=BYTES (as 1GiB; needed), seed=NUMBER (default 0), "
    "flags=none|p2p|precopy|p2p+precopy (default p2p), fail_load=0|1, fail_state=STATE, "
    "profile=NAME, dirty=BYTES, read_bytes=BYTES, precopy_calls=NUMBER, truncate=BYTE, "
    "fail_read=BYTE, fail_write=BYTE, excess=BYTES, unknown_tag=optional|mandatory, "
    "fail_precopy=0|1, block_stop=0|1, stop_error=EBUSY|EIO, reset_at=BYTE, error_at=BYTE, "
    "detach_at=BYTE";

template <typename Out, typename Value>
absl::Status Into(absl::StatusOr<Value> parsed, Out& out) {
  if (!parsed.ok()) return parsed.status();
  out = *std::move(parsed);
  return absl::OkStatus();
}

// One of `choices`, by its word.
template <typename Value, size_t kCount>
absl::StatusOr<Value> Choose(absl::string_view text,
                             const std::pair<absl::string_view, Value> (&choices)[kCount]) {
  std::string words;
  for (size_t i = 0; i < kCount; ++i) {
    if (text == choices[i].first) return choices[i].second;
    absl::StrAppend(&words, i == 0 ? "" : i + 1 == kCount ? " or " : ", ", choices[i].first);
  }
  return absl::InvalidArgumentError(absl::StrCat("'", text, "' is not ", words));
}

template <typename Number>
absl::StatusOr<Number> ParseNumber(absl::string_view text) {
  Number number = 0;
  // SimpleAtoi takes spaces and a plus; a number here is digits.
  const bool digits = text.find_first_not_of("0123456789") == absl::string_view::npos;
  if (digits && absl::SimpleAtoi(text, &number)) return number;
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is not a number from 0 to ", std::numeric_limits<Number>::max()));
}

absl::StatusOr<bool> ParseBool(absl::string_view text) {
  return Choose<bool>(text, {{"0", false}, {"1", true}});
}

absl::StatusOr<MigrationFlags> ParseFlags(absl::string_view text) {
  return Choose<MigrationFlags>(text, {{"none", {false, false}},
                                       {"p2p", {true, false}},
                                       {"precopy", {false, true}},
                                       {"p2p+precopy", {true, true}}});
}

absl::StatusOr<std::optional<DeviceState>> ParseState(absl::string_view text) {
  std::string names;
  for (uint32_t i = 1; i < kDeviceStateCount; ++i) {  // ERROR is never entered by a wish
    const auto state = static_cast<DeviceState>(i);
    if (text == DeviceStateName(state)) return std::optional<DeviceState>(state);
    absl::StrAppend(&names, names.empty() ? "" : ", ", DeviceStateName(state));
  }
  return absl::InvalidArgumentError(absl::StrCat("'", text, "' is none of ", names));
}

absl::Status SetInjection(absl::string_view key, absl::string_view value,
                          SoftInjection& injection) {
  const std::pair<absl::string_view, std::optional<uint64_t>*> bytes[] = {
      {"truncate", &injection.truncate_at},     {"fail_read", &injection.fail_read_at},
      {"fail_write", &injection.fail_write_at}, {"reset_at", &injection.reset_at},
      {"error_at", &injection.error_at},        {"detach_at", &injection.detach_at}};
  for (const auto& [name, out] : bytes) {
    if (key == name) return Into(ParseBytes(value), *out);
  }
  if (key == "excess") return Into(ParseBytes(value), injection.excess_bytes);
  if (key == "fail_precopy") return Into(ParseBool(value), injection.fail_precopy);
  if (key == "block_stop") return Into(ParseBool(value), injection.block_stop);
  if (key == "stop_error") {
    return Into(Choose<SoftStopError>(
                    value, {{"EBUSY", SoftStopError::kBusy}, {"EIO", SoftStopError::kIo}}),
                injection.stop_error);
  }
  if (key == "unknown_tag") {
    return Into(Choose<SoftUnknownTag>(value, {{"optional", SoftUnknownTag::kOptional},
                                               {"mandatory", SoftUnknownTag::kMandatory}}),
                injection.unknown_tag);
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown key; the keys are ", kSoftKeys));
}

absl::Status SetOption(absl::string_view key, absl::string_view value, SoftDeviceOptions& options) {
  if (key == "size") return Into(ParseBytes(value), options.size_bytes);
  if (key == "seed") return Into(ParseNumber<uint64_t>(value), options.seed);
  if (key == "flags") return Into(ParseFlags(value), options.flags);
  if (key == "fail_load") return Into(ParseBool(value), options.fail_load);
  if (key == "fail_state") return Into(ParseState(value), options.fail_state);
  if (key == "profile") return Into(ParseSoftProfile(value), options.profile);
  if (key == "dirty") return Into(ParseBytes(value), options.dirty_bytes_per_second);
  if (key == "read_bytes") return Into(ParseBytes(value), options.read_bytes);
  if (key == "precopy_calls") return Into(ParseNumber<uint32_t>(value), options.precopy_calls);
  return SetInjection(key, value, options.injection);
}

// What keys say together.
absl::Status Complete(const std::set<absl::string_view>& given, SoftDeviceOptions& options) {
  const SoftProfileTraits& traits = TraitsOf(options.profile);
  const bool plain = options.profile == SoftProfile::kPlain;
  if (!given.contains("size")) {
    if (traits.size_default == 0) {
      return absl::InvalidArgumentError(absl::StrCat("size is missing; the keys are ", kSoftKeys));
    }
    options.size_bytes = traits.size_default;
  }
  GODWIT_RETURN_IF_ERROR(Annotate(CheckProfileSize(options.profile, options.size_bytes), "'size'"));
  const auto needs = [&](absl::string_view key, bool has, absl::string_view what) {
    return has || !given.contains(key)
               ? absl::OkStatus()
               : absl::InvalidArgumentError(
                     absl::StrCat("'", key, "': a device like ", traits.name, " has no ", what));
  };
  const bool framed = traits.framing != SoftFraming::kRaw;
  const bool optional_tags = framed && traits.framing != SoftFraming::kXe;
  GODWIT_RETURN_IF_ERROR(needs("flags", plain, "choice of flags"));
  GODWIT_RETURN_IF_ERROR(
      needs("dirty", options.profile == SoftProfile::kMlx5, "dirty data that grows with time"));
  GODWIT_RETURN_IF_ERROR(
      needs("precopy_calls", traits.info_makes_dirty, "side effect of GET_PRECOPY_INFO"));
  GODWIT_RETURN_IF_ERROR(needs("unknown_tag", framed, "tags"));
  if (options.injection.unknown_tag == SoftUnknownTag::kOptional) {
    GODWIT_RETURN_IF_ERROR(needs("unknown_tag", optional_tags, "optional tags"));
  }
  if (given.contains("reset_at") + given.contains("error_at") + given.contains("detach_at") > 1) {
    return absl::InvalidArgumentError("only one of reset_at, error_at and detach_at can be given");
  }
  if (!plain) options.flags = traits.flags;
  if (options.profile == SoftProfile::kVirtio && !given.contains("precopy_calls")) {
    options.precopy_calls = kVirtioPrecopyCalls;
  }
  if (options.profile == SoftProfile::kMlx5) options.first_read_bytes = kMlx5FirstReadBytes;
  if (options.read_bytes > 0) {
    options.first_read_bytes = std::min(options.first_read_bytes, options.read_bytes);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SoftDeviceOptions> ParseSoftOptions(absl::string_view text) {
  SoftDeviceOptions options;
  std::set<absl::string_view> given;
  for (const absl::string_view item : absl::StrSplit(text, ',')) {
    const std::pair<absl::string_view, absl::string_view> option =
        absl::StrSplit(item, absl::MaxSplits('=', 1));
    const absl::string_view key = option.first;
    if (item.find('=') == absl::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", item, "' is not KEY=VALUE; the keys are ", kSoftKeys));
    }
    if (!given.insert(key).second) {
      return absl::InvalidArgumentError(absl::StrCat("key '", key, "' is given twice"));
    }
    GODWIT_RETURN_IF_ERROR(
        Annotate(SetOption(key, option.second, options), absl::StrCat("'", key, "'")));
  }
  GODWIT_RETURN_IF_ERROR(Complete(given, options));
  return options;
}

std::unique_ptr<Device> MakeSoftDevice(std::string name, const SoftDeviceOptions& options) {
  if (options.profile == SoftProfile::kPlain && options.read_bytes == 0 &&
      !options.injection.any()) {
    return std::make_unique<SoftDevice>(std::move(name), options);
  }
  return std::make_unique<SoftProfileDevice>(std::move(name), options);
}

}  // namespace godwit
