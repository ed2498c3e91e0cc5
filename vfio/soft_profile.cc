#include "vfio/soft_profile.h"

#include <absl/strings/str_cat.h>

#include <array>
#include <string>

#include "base/units.h"
#include "vfio/little_endian.h"
#include "vfio/stream_format.h"

namespace godwit {
namespace {

using enum SoftProfile;
using enum SoftNothingNow;
using absl::string_view;

constexpr MigrationFlags kAll = {.p2p = true, .pre_copy = true};
constexpr MigrationFlags kP2p = {.p2p = true, .pre_copy = false};
constexpr MigrationFlags kPre = {.p2p = false, .pre_copy = true};

// clang-format off
constexpr std::array<SoftProfileTraits, 8> kTraits = {{
    //        name     flags framing              nothing  info   write  trunc. pre  default    max
    {kPlain,  "plain",  kAll, SoftFraming::kRaw,    kAgain,  false, false, false, 0,  0,          0},
    {kMlx5,   "mlx5",   kAll, SoftFraming::kMlx5,   kAgain,  true,  true,  true,  0,  0,          0},
    {kHisi,   "hisi",   kPre, SoftFraming::kRaw,    kZero,   false, false, false, kHisiMatchBytes, kHisiBytes, kHisiBytes},
    {kPds,    "pds",    kP2p, SoftFraming::kRaw,    kBlocks, false, false, true,  0,  0,          kPdsBytesMax},
    {kQat,    "qat",    kAll, SoftFraming::kRaw,    kZero,   false, false, false, 256, kQatBytes, kQatBytes},
    {kVirtio, "virtio", kAll, SoftFraming::kVirtio, kAgain,  true,  true,  true,  0,  0,          16 * kMiB},
    {kXe,     "xe",     kP2p, SoftFraming::kXe,     kBlocks, false, true,  false, 0,  0,          0},
    {kMtty,   "mtty",   kAll, SoftFraming::kRaw,    kZero,   false, false, false, kMttyHeaderBytes,
     kMttyHeaderBytes + kMttyPortBytes, kMttyHeaderBytes + kMttyPortsMax * kMttyPortBytes},
}};
// clang-format on

// The match block of a device that is ready.
std::string HisiMatchBlock() {
  constexpr uint32_t kQueuePairs = 8;
  constexpr uint32_t kDeviceId = 0xa251;  // a compression engine's virtual function
  constexpr uint32_t kReady = 1;
  std::string block;
  AppendLittle(kHisiMagicV2, block);
  AppendLittle(kQueuePairs, block);
  AppendLittle(kDeviceId, block);
  AppendLittle<uint32_t>(0, block);  // queue isolation
  AppendLittle<uint32_t>(0, block);  // queue base
  AppendLittle(kReady, block);
  AppendLittle(kHisiMajorVersion, block);
  AppendLittle<uint16_t>(0, block);  // minor version
  block.resize(kHisiMatchBytes);
  return block;
}

// A preamble, and one section that has all the rest as its content.
std::string QatHeader() {
  constexpr uint32_t kSectionsBytes = kQatBytes - kQatPreambleBytes;
  std::string header;
  AppendLittle(kQatMagic, header);
  AppendLittle(kQatVersion, header);
  AppendLittle(static_cast<uint16_t>(kQatPreambleBytes), header);
  AppendLittle<uint16_t>(1, header);  // sections
  AppendLittle(kSectionsBytes, header);
  header.append("SOFT");
  header.resize(kQatPreambleBytes + kQatIdBytes);
  AppendLittle(static_cast<uint32_t>(kSectionsBytes - kQatSectionHeaderBytes), header);
  AppendLittle<uint32_t>(0, header);  // sections inside
  return header;
}

std::string MttyHeader(uint64_t size_bytes) {
  std::string header;
  AppendLittle(kMttyMagic, header);
  AppendLittle(kMttyMajorVersion, header);
  AppendLittle<uint32_t>(0, header);  // minor version
  AppendLittle(static_cast<uint32_t>((size_bytes - kMttyHeaderBytes) / kMttyPortBytes), header);
  AppendLittle<uint32_t>(0, header);  // flags
  return header;
}

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

std::string SoftImageHeader(SoftProfile profile, uint64_t size_bytes) {
  switch (profile) {
    case kHisi:
      return HisiMatchBlock();
    case kQat:
      return QatHeader();
    case kMtty:
      return MttyHeader(size_bytes);
    default:
      return "";
  }
}

}  // namespace godwit
