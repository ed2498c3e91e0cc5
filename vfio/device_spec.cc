#include "vfio/device_spec.h"

#include <absl/strings/escaping.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>

#include <array>
#include <set>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "godwit/vfio_device.h"
#include "vfio/file_device.h"

namespace godwit {
namespace {

constexpr absl::string_view kSoftKeys =
    "size=BYTES (as 1GiB; needed), seed=NUMBER (default 0), "
    "flags=none|p2p|precopy|p2p+precopy (default p2p), fail_load=0|1, fail_state=STATE";

template <typename Value>
absl::Status Into(absl::StatusOr<Value> parsed, Value& out) {
  if (!parsed.ok()) return parsed.status();
  out = *std::move(parsed);
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> ParseSeed(absl::string_view text) {
  uint64_t seed = 0;
  // SimpleAtoi takes spaces and a plus; a seed is digits.
  const bool digits = text.find_first_not_of("0123456789") == absl::string_view::npos;
  if (digits && absl::SimpleAtoi(text, &seed)) return seed;
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is not a number from 0 to 18446744073709551615"));
}

absl::StatusOr<MigrationFlags> ParseFlags(absl::string_view text) {
  static constexpr std::array<std::pair<absl::string_view, MigrationFlags>, 4> kChoices = {
      {{"none", {false, false}},
       {"p2p", {true, false}},
       {"precopy", {false, true}},
       {"p2p+precopy", {true, true}}}};
  for (const auto& [word, flags] : kChoices) {
    if (text == word) return flags;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is not none, p2p, precopy or p2p+precopy"));
}

absl::StatusOr<bool> ParseBool(absl::string_view text) {
  if (text == "0" || text == "1") return text == "1";
  return absl::InvalidArgumentError(absl::StrCat("'", text, "' is not 0 or 1"));
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

absl::Status SetSoftOption(absl::string_view key, absl::string_view value,
                           SoftDeviceOptions& options) {
  if (key == "size") return Into(ParseBytes(value), options.size_bytes);
  if (key == "seed") return Into(ParseSeed(value), options.seed);
  if (key == "flags") return Into(ParseFlags(value), options.flags);
  if (key == "fail_load") return Into(ParseBool(value), options.fail_load);
  if (key == "fail_state") return Into(ParseState(value), options.fail_state);
  return absl::InvalidArgumentError(absl::StrCat("unknown key; the keys are ", kSoftKeys));
}

}  // namespace

absl::string_view DeviceSpecHelp() {
  return "  vfio:/sys/bus/mdev/devices/UUID   a mediated VFIO device\n"
         "  vfio:0000:01:00.1                 a PCI function bound to a VFIO driver; "
         "\",via=group\" or\n"
         "                                    \",via=cdev\" behind it forces the way to it\n"
         "  soft:size=1GiB,seed=7             a device in software; same size and seed both sides\n"
         "  file:PATH                         a file whose bytes are the state";
}

absl::StatusOr<SoftDeviceOptions> ParseSoftOptions(absl::string_view text) {
  SoftDeviceOptions options;
  std::set<absl::string_view> seen;
  for (const absl::string_view item : absl::StrSplit(text, ',')) {
    const std::pair<absl::string_view, absl::string_view> option =
        absl::StrSplit(item, absl::MaxSplits('=', 1));
    const absl::string_view key = option.first;
    if (item.find('=') == absl::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", item, "' is not KEY=VALUE; the keys are ", kSoftKeys));
    }
    if (!seen.insert(key).second) {
      return absl::InvalidArgumentError(absl::StrCat("key '", key, "' is given twice"));
    }
    GODWIT_RETURN_IF_ERROR(
        Annotate(SetSoftOption(key, option.second, options), absl::StrCat("'", key, "'")));
  }
  if (!seen.contains("size")) {
    return absl::InvalidArgumentError(absl::StrCat("size is missing; the keys are ", kSoftKeys));
  }
  return options;
}

absl::StatusOr<std::unique_ptr<Device>> OpenDevice(absl::string_view spec, DeviceRole role) {
  const size_t colon = spec.find(':');
  const absl::string_view kind = spec.substr(0, colon);
  const absl::string_view rest =
      colon == absl::string_view::npos ? absl::string_view() : spec.substr(colon + 1);
  if (kind == "file" && !rest.empty()) return FileDevice::Open(std::string(rest), role);
  if (kind == "vfio" && !rest.empty()) return VfioDevice::Open(rest);
  if (kind == "soft" && !rest.empty()) {
    const absl::StatusOr<SoftDeviceOptions> options = ParseSoftOptions(rest);
    if (options.ok()) return std::make_unique<SoftDevice>(std::string(spec), *options);
    return Annotate(options.status(), absl::StrCat("device '", absl::CHexEscape(spec), "'"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", absl::CHexEscape(spec),
                   "' is no device: write vfio:/sys/bus/mdev/devices/UUID, vfio:0000:01:00.1, "
                   "soft:size=1GiB,seed=7 or file:PATH"));
}

}  // namespace godwit
