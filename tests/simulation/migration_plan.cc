#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>

#include "base/check.h"
#include "base/units.h"
#include "tests/simulation/migration.h"
#include "transport/lane_proof.h"
#include "vfio/soft_options.h"

namespace godwit::simulation {
namespace {

constexpr uint64_t kPacketsMax = 200;  // in one round of all devices

Duration Pick(Random& random, Duration low, Duration high) {
  return Duration(
      random.Between(static_cast<uint64_t>(low.count()), static_cast<uint64_t>(high.count())));
}

// A log scale: small ones as often as large ones.
uint64_t PickSize(Random& random, uint64_t max) {
  uint64_t bits = 0;
  while ((uint64_t{2} << bits) <= max) ++bits;
  return random.Below(std::min(max, uint64_t{2} << random.Below(bits + 1))) + 1;
}

std::string PickDevice(Random& random, bool must_have_p2p) {
  static constexpr const char* kProfiles[] = {"plain", "plain", "mlx5", "mlx5", "virtio",
                                              "pds",   "qat",   "xe",   "mtty", "hisi"};
  const std::string profile =
      kProfiles[random.Below(std::size(kProfiles) - (must_have_p2p ? 1 : 0))];
  std::string text = absl::StrCat("profile=", profile, ",seed=", random.Below(1000));
  if (profile == "plain") {
    absl::StrAppend(&text, ",size=", PickSize(random, 256 * kKiB),
                    random.OneIn(2) ? ",flags=p2p+precopy" : "");
  } else if (profile == "mlx5") {
    absl::StrAppend(&text, ",size=", PickSize(random, 256 * kKiB),
                    ",dirty=", random.OneIn(2) ? 0 : PickSize(random, 64 * kKiB));
    if (random.OneIn(4)) absl::StrAppend(&text, ",read_bytes=", random.Between(512, 8192));
  } else if (profile == "virtio" || profile == "xe") {
    absl::StrAppend(&text, ",size=", PickSize(random, 64 * kKiB));
  } else if (profile == "pds") {
    absl::StrAppend(&text, ",size=", PickSize(random, 32 * kKiB));
  }
  return text;
}

std::string PickMisfortune(Random& random, bool loading) {
  const uint64_t at = PickSize(random, 128 * kKiB);
  switch (random.Below(6)) {
    case 0:
      return absl::StrCat(loading ? ",fail_write=" : ",fail_read=", at);
    case 1:
      return absl::StrCat(",reset_at=", at);
    case 2:
      return absl::StrCat(",error_at=", at);
    case 3:
      return absl::StrCat(",stop_error=", random.OneIn(2) ? "EBUSY" : "EIO");
    case 4:  // (A stream that is too short or too long several drivers would swallow.)
      return loading ? ",fail_load=1" : ",fail_precopy=1";
    default:
      return absl::StrCat(",fail_state=", random.OneIn(2) ? "STOP" : "RUNNING_P2P");
  }
}

uint64_t SizeOf(const std::string& device) { return ParseSoftOptions(device)->size_bytes; }

void PickDevices(Random& random, MigrationPlan& plan) {
  const uint64_t devices = random.OneIn(64)  ? random.Between(16, 64)
                           : random.OneIn(2) ? 1
                                             : random.Between(2, 4);
  for (uint64_t i = 0; i < devices; ++i) {
    plan.source_devices.push_back(PickDevice(random, devices > 1));
  }
  plan.target_devices = plan.source_devices;
}

void PickOptions(Random& random, MigrationPlan& plan) {
  SourceOptions& source = plan.source;
  source.to = "127.0.0.1:7471";
  source.transport = TransportKind::kTcp;
  source.lanes = static_cast<uint32_t>(PickSize(random, 16));
  uint64_t bytes = 0;
  for (const std::string& device : plan.source_devices) bytes += SizeOf(device);
  // Small packets make many turns. Where a read of 0 means "nothing now" the soft device's stream
  // is of messages, of which a read that is too short would lose the rest.
  const bool messages = std::any_of(
      plan.source_devices.begin(), plan.source_devices.end(), [](const std::string& device) {
        return TraitsOf(ParseSoftOptions(device)->profile).nothing_now == SoftNothingNow::kZero;
      });
  source.packet_bytes =
      bytes / kPacketsMax + PickSize(random, 16 * kKiB) + (messages ? 4 * kKiB : 0);
  source.arena_bytes = random.OneIn(4) ? 1 : 2 * kMiB;
  source.pre_copy = !random.OneIn(4);
  source.precopy_limits.downtime = std::chrono::milliseconds(random.Between(1, 300));
  source.precopy_limits.time_max = std::chrono::milliseconds(random.Between(1, 5000));
  source.precopy_limits.on_no_convergence =
      random.OneIn(8) ? OnNoConvergence::kAbort : OnNoConvergence::kSwitch;
  TargetOptions& target = plan.target;
  target.listen = "0.0.0.0:7471";
  target.transport = TransportKind::kTcp;
  target.arena_bytes = random.OneIn(4) ? 1 : 2 * kMiB;
}

void PickNetwork(Random& random, NetworkPlan& network) {
  network.latency_min = Pick(random, Duration(0), std::chrono::microseconds(200));
  network.latency_max =
      network.latency_min + (random.OneIn(4)
                                 ? Pick(random, Duration(0), std::chrono::milliseconds(50))
                                 : Pick(random, Duration(0), std::chrono::microseconds(500)));
  network.jitter_max =
      random.OneIn(2) ? Duration(0) : Pick(random, Duration(0), std::chrono::milliseconds(2));
  network.bytes_per_second_min = uint64_t{1} << random.Between(20, 30);
  network.bytes_per_second_max = network.bytes_per_second_min * random.Between(1, 16);
  network.buffer_bytes = (uint64_t{64} << random.Below(5)) * kKiB;
}

void PickTrust(Random& random, MigrationPlan& plan) {
  if (!random.OneIn(3)) {
    plan.source.trust.insecure = plan.target.trust.insecure = true;  // nobody else is there
    return;
  }
  plan.source.trust.psk_file = plan.target.trust.psk_file = PskFile();
  plan.network.lane_proof_bytes = kLaneProofBytes;
  // (Auto: on, since this is not loopback.)
  if (random.OneIn(4)) plan.source.trust.seal = SealMode::kOff;
}

// When something goes wrong: anywhere in the calm run or a little later, or while nobody runs,
// which is when it matters most.
Duration PickMoment(Random& random, const MigrationResult& calm) {
  const Duration end = calm.time + calm.time / 8;
  if (calm.stopped_at.count() > 0 && random.OneIn(2)) return Pick(random, calm.stopped_at, end);
  if (calm.committed_at.count() > 0 && random.OneIn(2)) return Pick(random, calm.committed_at, end);
  return Pick(random, Duration(0), end);
}

void PickTrouble(Random& random, const MigrationResult& calm, MigrationPlan& plan) {
  // The control channel, one that follows it, or a lane.
  const auto connection = [&] {
    const auto lanes = static_cast<int>(plan.source.lanes);
    return random.OneIn(2) ? 0
                           : static_cast<int>(random.Between(1, static_cast<uint64_t>(lanes) + 2));
  };
  for (uint64_t troubles = random.OneIn(4) ? random.Between(2, 3) : 1; troubles > 0; --troubles) {
    const int host = random.OneIn(2) ? kSourceHost : kTargetHost;
    switch (random.Below(8)) {
      case 0: {
        auto& devices = host == kSourceHost ? plan.source_devices : plan.target_devices;
        std::string& device = devices[random.Below(devices.size())];
        const std::string unlucky =
            absl::StrCat(device, PickMisfortune(random, host == kTargetHost));
        if (ParseSoftOptions(unlucky).ok()) device = unlucky;  // not every driver can have each
        break;
      }
      case 1:
        plan.deeds.push_back({Deed::kCancel, host, 0, PickMoment(random, calm)});
        break;
      case 2:
        plan.deeds.push_back({Deed::kKill, host, 0, PickMoment(random, calm)});
        break;
      case 3:
        plan.deeds.push_back({Deed::kPowerOff, host, 0, PickMoment(random, calm)});
        break;
      case 4: {
        const Duration from = kClockStart + PickMoment(random, calm);
        plan.network.partitions.push_back(
            {from, from + Pick(random, std::chrono::milliseconds(1), std::chrono::seconds(30))});
        break;
      }
      case 5:  // lanes break in a row, also those that are made again
        for (uint64_t breaks = random.Between(1, 20); breaks > 0; --breaks) {
          // (Not before they are up: a session begins with all its lanes or not at all.)
          plan.deeds.push_back(
              {Deed::kBreak, host,
               static_cast<int>(random.Between(1, 3 * uint64_t{plan.source.lanes})),
               std::max(calm.lanes_up_at, PickMoment(random, calm))});
        }
        break;
      case 6:
        plan.deeds.push_back({Deed::kBreak, host, connection(),
                              std::max(calm.lanes_up_at, PickMoment(random, calm))});
        break;
      default:
        plan.network.frame_fault = random.OneIn(2) ? FrameFault::kDuplicated : FrameFault::kDamaged;
        plan.network.faulty_frame = random.Below(calm.packets + 1);
    }
  }
}

}  // namespace

const std::string& PskFile() {
  static const auto* const path = [] {
    const int fd = ::memfd_create("a pre-shared key", 0);
    const std::string key = absl::StrCat(std::string(64, '5'), "\n");
    GODWIT_CHECK(fd >= 0 && ::fchmod(fd, 0600) == 0 &&
                 ::write(fd, key.data(), key.size()) == static_cast<ssize_t>(key.size()));
    return new std::string(absl::StrCat("/proc/self/fd/", fd));
  }();
  return *path;
}

MigrationPlan CalmPlanOf(uint64_t seed) {
  Random random(2 * seed + 1);
  MigrationPlan plan;
  PickDevices(random, plan);
  PickOptions(random, plan);
  PickNetwork(random, plan.network);
  PickTrust(random, plan);
  plan.processors = seed % 2 == 0 ? 2 : 8;  // few, and enough to overlap
  return plan;
}

MigrationPlan TroubledPlanOf(uint64_t seed, const MigrationResult& calm) {
  Random random(2 * seed);
  MigrationPlan plan = CalmPlanOf(seed);
  PickTrouble(random, calm, plan);
  return plan;
}

std::string Describe(const MigrationPlan& plan) {
  std::string text;
  for (size_t i = 0; i < plan.source_devices.size(); ++i) {
    absl::StrAppend(&text, "  device ", i, ": ", plan.source_devices[i]);
    if (plan.target_devices[i] != plan.source_devices[i]) {
      absl::StrAppend(&text, "; at the target: ", plan.target_devices[i]);
    }
    absl::StrAppend(&text, "\n");
  }
  absl::StrAppend(&text, "  ", plan.source.lanes, " lanes, packets of ", plan.source.packet_bytes,
                  " bytes, arenas of ", plan.source.arena_bytes, " and ", plan.target.arena_bytes,
                  plan.source.pre_copy ? ", with" : ", without", " pre-copy, ",
                  TrustKindName(plan.source.trust.kind()),
                  plan.source.trust.seal == SealMode::kOff ? ", unsealed" : "", "\n");
  const NetworkPlan& network = plan.network;
  absl::StrAppend(&text, "  ", plan.processors, " processors a host\n");
  absl::StrAppend(&text, "  latency ", network.latency_min.count(), " to ",
                  network.latency_max.count(), " ns, jitter to ", network.jitter_max.count(),
                  " ns, ", network.bytes_per_second_min, " to ", network.bytes_per_second_max,
                  " bytes/s, buffers of ", network.buffer_bytes, " bytes\n");
  const auto moment = [](Duration at) { return absl::StrCat(at.count() / 1000, " us"); };
  for (const NetworkPlan::Partition& partition : network.partitions) {
    absl::StrAppend(&text, "  partition from ", moment(partition.from - kClockStart), " to ",
                    moment(partition.to - kClockStart), "\n");
  }
  if (network.frame_fault != FrameFault::kNone) {
    absl::StrAppend(&text, "  frame ", network.faulty_frame,
                    network.frame_fault == FrameFault::kDamaged ? " damaged\n" : " duplicated\n");
  }
  for (const PlannedDeed& planned : plan.deeds) {
    if (planned.deed == Deed::kBreak) {
      absl::StrAppend(&text, "  connection ", planned.connection, " breaks at ", moment(planned.at),
                      "\n");
      continue;
    }
    const char* const deed = planned.deed == Deed::kCancel ? "cancelled"
                             : planned.deed == Deed::kKill ? "killed"
                                                           : "powered off";
    absl::StrAppend(&text, planned.host == kSourceHost ? "  source " : "  target ", deed, " at ",
                    moment(planned.at), "\n");
  }
  return text;
}

}  // namespace godwit::simulation
