#include "engine/rdma_ports.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>

#include <utility>

#include "base/status_macros.h"
#include "transport/verbs/memlock.h"

namespace godwit {

absl::StatusOr<std::vector<VerbsDeviceOptions>> ParseRdmaDevices(absl::string_view text) {
  std::vector<VerbsDeviceOptions> devices;
  for (const absl::string_view one : absl::StrSplit(text, ',')) {
    const std::vector<std::string> parts = absl::StrSplit(one, '/');
    VerbsDeviceOptions options;
    options.device_name = parts[0];
    uint32_t number = 0;
    const bool named = !parts[0].empty() || text.empty();
    const bool port = parts.size() < 2 || (absl::SimpleAtoi(parts[1], &number) && number > 0);
    if (parts.size() > 1) options.port = number;
    const bool gid = parts.size() < 3 || absl::SimpleAtoi(parts[2], &number);
    if (parts.size() > 2) options.gid_index = number;
    if (!named || !port || !gid || parts.size() > 3) {
      return absl::InvalidArgumentError(absl::StrCat(
          "'", one, "' is no RDMA device: name each as `godwit devices` does, NAME, NAME/PORT or ",
          "NAME/PORT/GID, with commas between"));
    }
    devices.push_back(std::move(options));
  }
  if (devices.size() <= kRdmaPortsMax) return devices;
  return absl::InvalidArgumentError(absl::StrCat(
      devices.size(), " RDMA devices are named, a session uses ", kRdmaPortsMax, " at most"));
}

absl::StatusOr<std::unique_ptr<RdmaPorts>> RdmaPorts::Open(const std::string& devices,
                                                           const Arena& arena) {
  GODWIT_ASSIGN_OR_RETURN(const auto wanted, ParseRdmaDevices(devices));
  // Each pins the whole arena, and the kernel counts each.
  GODWIT_RETURN_IF_ERROR(CheckMemlock(CurrentMemlockAllowance(), arena.size_bytes() * wanted.size(),
                                      devices.empty() ? "for packets" : devices));
  std::unique_ptr<RdmaPorts> ports(new RdmaPorts);
  for (const VerbsDeviceOptions& options : wanted) {
    Port port;
    GODWIT_ASSIGN_OR_RETURN(port.device, VerbsDevice::Open(options, arena));
    ports->ports_.push_back(std::move(port));
  }
  return ports;
}

absl::StatusOr<std::unique_ptr<VerbsLane>> RdmaPorts::MakeLane(size_t lane, uint16_t generation,
                                                               LaneRole role,
                                                               const LaneLimits& limits) {
  if (queue_pairs_.size() <= lane) queue_pairs_.resize(lane + 1);
  absl::Status first_error;
  for (size_t tried = 0; tried < ports_.size(); ++tried) {
    // A lane that is made again tries the next port: its own may be why it died.
    const size_t at = (lane + generation + tried) % ports_.size();
    if (ports_[at].dead || ports_[at].down_since.count() > 0) continue;
    absl::StatusOr<std::unique_ptr<VerbsLane>> made =
        VerbsLane::Create(*ports_[at].device, role, limits);
    if (!made.ok()) {
      if (first_error.ok()) first_error = made.status();
      continue;
    }
    queue_pairs_[lane] = {at, (*made)->local().queue_pair_number, generation};
    return made;
  }
  if (!first_error.ok()) return first_error;
  return absl::UnavailableError(
      absl::StrCat("RDMA port ", ports_[lane % ports_.size()].device->name(), " is down"));
}

void RdmaPorts::Follow(const Note& note, const Drop& drop) {
  const Clock::Duration now = Clock::Steady().Now();
  for (size_t at = 0; at < ports_.size(); ++at) {
    Port& port = ports_[at];
    for (const VerbsEvent& event : port.device->TakeEvents()) Take(at, event, note, drop);
    const bool down = port.down_since.count() > 0 && now - port.down_since > kPortDownMax;
    if (!down || port.given_up) continue;
    port.given_up = true;
    DropAll(at, absl::UnavailableError(absl::StrCat("RDMA port ", port.device->name(), " is down")),
            drop);
  }
}

void RdmaPorts::Take(size_t at, const VerbsEvent& event, const Note& note, const Drop& drop) {
  Port& port = ports_[at];
  const std::string& name = port.device->name();
  switch (event.kind) {
    case VerbsEvent::Kind::kQueuePairDead:
      for (size_t lane = 0; lane < queue_pairs_.size(); ++lane) {
        const QueuePair& queue_pair = queue_pairs_[lane];
        if (queue_pair.port != at || queue_pair.number != event.queue_pair_number) continue;
        drop(lane, queue_pair.generation,
             absl::UnavailableError(absl::StrCat(name, " says of it: ", event.text)));
      }
      return;
    case VerbsEvent::Kind::kPortDown:
      if (port.down_since.count() == 0) port.down_since = Clock::Steady().Now();
      note(absl::StrCat("RDMA port ", name, " is down"));
      return;
    case VerbsEvent::Kind::kPortUp:
      port.down_since = Clock::Duration(0);
      port.given_up = false;
      note(absl::StrCat("RDMA port ", name, " is up"));
      return;
    case VerbsEvent::Kind::kAddressChanged: {
      // For the next queue pair; those that there are go on as long as their address does.
      const absl::Status looked_up = port.device->LookUpAddressAgain();
      if (!looked_up.ok()) note(std::string(looked_up.message()));
      return;
    }
    case VerbsEvent::Kind::kDeviceDead:
      port.dead = true;
      note(absl::StrCat("RDMA device of port ", name, " has failed"));
      DropAll(at, absl::UnavailableError(absl::StrCat(name, " says: ", event.text)), drop);
      return;
    case VerbsEvent::Kind::kOther:
      return;
  }
}

void RdmaPorts::DropAll(size_t at, const absl::Status& why, const Drop& drop) {
  for (size_t lane = 0; lane < queue_pairs_.size(); ++lane) {
    const QueuePair& queue_pair = queue_pairs_[lane];
    if (queue_pair.number != 0 && queue_pair.port == at) drop(lane, queue_pair.generation, why);
  }
}

}  // namespace godwit
