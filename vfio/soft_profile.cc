#include "vfio/soft_profile.h"

#include <absl/strings/str_cat.h>

#include <array>
#include <string>

#include "base/units.h"

namespace godwit {
namespace {

using enum SoftProfile;
using enum SoftNothingNow;
using absl::string_view;

constexpr uint64_t kHisiBytes = 176;
constexpr uint64_t kQatBytes = 4096;
constexpr uint64_t kMttyHeaderBytes = 24;
constexpr uint64_t kMttyPortBytes = 36;
constexpr MigrationFlags kAll = {.p2p = true, .pre_copy = true};
constexpr MigrationFlags kP2p = {.p2p = true, .pre_copy = false};
constexpr MigrationFlags kPre = {.p2p = false, .pre_copy = true};

// The headers are of the drivers' kind and length, not their bytes.
// clang-format off
constexpr std::array<SoftProfileTraits, 8> kTraits = {{
    //        name     flags framing              nothing  info   write  trunc. pre  default    max
    {kPlain,  "plain",  kAll, SoftFraming::kRaw,    kAgain,  false, false, false, 0,  0,          0, ""},
    {kMlx5,   "mlx5",   kAll, SoftFraming::kMlx5,   kAgain,  true,  true,  true,  0,  0,          0, ""},
    {kHisi,   "hisi",   kPre, SoftFraming::kRaw,    kZero,   false, false, false, 40, kHisiBytes, kHisiBytes, "HISI_ACC_MIG_1.0"},
    {kPds,    "pds",    kP2p, SoftFraming::kRaw,    kBlocks, false, false, true,  0,  0,          64 * kKiB, ""},
    {kQat,    "qat",    kAll, SoftFraming::kRaw,    kZero,   false, false, false, 256, kQatBytes, kQatBytes, "QAT_MIG_1.0"},
    {kVirtio, "virtio", kAll, SoftFraming::kVirtio, kAgain,  true,  true,  true,  0,  0,          16 * kMiB, ""},
    {kXe,     "xe",     kP2p, SoftFraming::kXe,     kBlocks, false, true,  false, 0,  0,          0, ""},
    {kMtty,   "mtty",   kAll, SoftFraming::kRaw,    kZero,   false, false, false, kMttyHeaderBytes,
     kMttyHeaderBytes + kMttyPortBytes, kMttyHeaderBytes + 2 * kMttyPortBytes, "MTTY_MIG_1.0"},
}};
// clang-format on

}  // namespace

const SoftProfileTraits& TraitsOf(SoftProfile profile) {
  return kTraits[static_cast<size_t>(profile)];
}

string_view SoftProfileName(SoftProfile profile) { return TraitsOf(profile).name; }

absl::StatusOr<SoftProfile> ParseSoftProfile(string_view name) {
  std::string names;
  for (const SoftProfileTraits& traits : kTraits) {
    if (name == traits.name) return traits.profile;
    absl::StrAppend(&names, names.empty() ? "" : ", ", traits.name);
  }
  return absl::InvalidArgumentError(absl::StrCat("'", name, "' is none of ", names));
}

absl::Status CheckProfileSize(SoftProfile profile, uint64_t size_bytes) {
  const SoftProfileTraits& traits = TraitsOf(profile);
  const auto wrong = [&](string_view allowed) {
    return absl::InvalidArgumentError(absl::StrCat("a device like ", traits.name, " has ", allowed,
                                                   " bytes of state, not ", size_bytes));
  };
  switch (profile) {
    case kHisi:
    case kQat:
      return size_bytes == traits.size_max ? absl::OkStatus()
                                           : wrong(absl::StrCat(traits.size_max));
    case kMtty:
      return size_bytes == traits.size_default || size_bytes == traits.size_max
                 ? absl::OkStatus()
                 : wrong("60 (one port) or 96 (two)");
    default:
      return traits.size_max == 0 || size_bytes <= traits.size_max
                 ? absl::OkStatus()
                 : wrong(absl::StrCat("at most ", traits.size_max));
  }
}

}  // namespace godwit
