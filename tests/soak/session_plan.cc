#include "tests/soak/session_plan.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "tools/key_maker.h"

namespace godwit {
namespace {

using Random = std::mt19937_64;

constexpr int kKeyDays = 2;

uint64_t Below(Random& random, uint64_t end) { return random() % end; }

std::string DeviceSpec(Random& random) {
  static const std::vector<std::string> kinds = {"", ",flags=p2p+precopy",
                                                 ",profile=mlx5,dirty=1000000",
                                                 ",profile=virtio,precopy_calls=8", ",profile=xe"};
  const uint64_t bytes = 1 + Below(random, Below(random, 4) == 0 ? 16 << 20 : 2 << 20);
  return absl::StrCat("soft:size=", bytes, ",seed=", Below(random, 1000),
                      kinds[Below(random, kinds.size())]);
}

void Write(const SoakSetting& setting, const char* name, const absl::StatusOr<std::string>& text) {
  absl::Status status = text.status();
  if (text.ok()) status = WriteNewFile(absl::StrCat(setting.keys_folder, "/", name), *text);
  if (status.ok()) return;
  std::fprintf(stderr, "%s: %s\n", name, status.ToString().c_str());
  std::exit(2);
}

TrustOptions Trust(Random& random, const SoakSetting& setting) {
  TrustOptions trust;
  const auto file = [&](const char* name) { return absl::StrCat(setting.keys_folder, "/", name); };
  static const std::vector<SealMode> seals = {SealMode::kAuto, SealMode::kOn, SealMode::kOff};
  switch (Below(random, 4)) {
    case 0:
      trust.psk_file = file("psk");
      break;
    case 1:
      trust.certificate_file = file("cert.pem");
      trust.key_file = file("key.pem");
      trust.ca_file = file("ca.pem");
      break;
    default:
      trust.insecure = true;
      return trust;
  }
  trust.seal = seals[Below(random, seals.size())];
  return trust;
}

Harm SomeHarm(Random& random) {
  static const std::vector<Harm> harms = {Harm::kCancelSource, Harm::kCancelTarget,
                                          Harm::kKillSource, Harm::kKillTarget};
  const uint64_t which = Below(random, 12);
  return which < harms.size() ? harms[which] : Harm::kNone;
}

}  // namespace

void WriteKeys(const SoakSetting& setting) {
  const auto authority = MakeAuthority(kKeyDays);
  if (!authority.ok()) std::exit(2);
  const auto identity = MakeIdentity(*authority, "soak", {setting.address}, kKeyDays);
  if (!identity.ok()) std::exit(2);
  Write(setting, "psk", MakePsk());
  Write(setting, "ca.pem", CertificatePem(*authority));
  Write(setting, "cert.pem", CertificatePem(*identity));
  Write(setting, "key.pem", KeyPem(*identity));
}

SessionPlan MakePlan(uint64_t seed, const SoakSetting& setting) {
  Random random(seed);
  // Everything takes far longer on an emulated machine.
  const bool slow = setting.transport == TransportKind::kVerbs;
  SessionPlan plan;
  plan.specs.resize(1 + Below(random, 3));
  for (std::string& spec : plan.specs) spec = DeviceSpec(random);
  plan.target.listen = absl::StrCat(setting.address, ":0");
  plan.target.trust = Trust(random, setting);
  plan.source.trust = plan.target.trust;
  plan.target.arena_bytes = (size_t{1} << 20) << Below(random, 6);
  plan.target.commit_timeout = std::chrono::milliseconds(1000);
  plan.target.outcome_hold = std::chrono::milliseconds(1000);
  plan.source.resolve_timeout = std::chrono::milliseconds(2000);
  plan.source.transport = setting.transport;
  plan.source.lanes = static_cast<uint32_t>(1 + Below(random, 6));
  plan.source.packet_bytes = 1 + Below(random, size_t{1} << (12 + Below(random, 9)));
  // A packet is copied a few times in all; millions of them would prove no more.
  plan.source.packet_bytes = std::max<size_t>(plan.source.packet_bytes, 4096);
  plan.source.arena_bytes = (size_t{1} << 20) << Below(random, 6);
  plan.source.pre_copy = Below(random, 4) != 0;
  plan.source.precopy_limits.time_max = std::chrono::milliseconds(1000);
  plan.harm = SomeHarm(random);
  plan.harm_after = std::chrono::milliseconds(Below(random, slow ? 3000 : 80));
  plan.lane_killer_seed = random();
  plan.lane_killer_every_ms_max = slow ? 1000 : 40;
  return plan;
}

}  // namespace godwit
