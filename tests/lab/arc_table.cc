// Walks a device through every arc, each present state × each wanted one, and holds what the kernel
// does against Godwit's own state table: whether it can be done, and where the device is
// afterwards. With a godwit_synth device also the steps between, which its driver keeps a log of.
//
//   arc_table DEVICE [FLAGS…]
//
// DEVICE is its folder, /sys/bus/mdev/devices/UUID. FLAGS are the values to give the device's
// synth/migration_flags one after the other; without, the device is taken as it is.

#include <absl/status/statusor.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <linux/vfio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iomanip>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "raw_device.h"
#include "vfio/state_table.h"

namespace godwit::lab {
namespace {

constexpr uint32_t kFlagP2p = 2, kFlagPreCopy = 4;

bool IsSynth(const RawDevice& device) {
  return access((device.path() + "/synth").c_str(), F_OK) == 0;
}

std::string ReadToEnd(int fd) {
  std::string all;
  std::vector<char> part(65536);
  for (;;) {
    const ssize_t bytes = read(fd, part.data(), part.size());
    Expect(bytes >= 0, std::string("read the stream: ") + std::strerror(errno));
    if (bytes == 0) return all;
    all.append(part.data(), static_cast<size_t>(bytes));
  }
}

std::string SaveStream(const RawDevice& device) {
  UniqueFd data_fd;
  Expect(device.SetState(kStopCopy, &data_fd) == 0 && data_fd.valid(), "no STOP_COPY stream");
  std::string stream = ReadToEnd(data_fd.get());
  device.Reset();
  return stream;
}

// A device at the start of an arc, with its stream if there is one. RESUMING has had a whole
// stream, or the arcs from it would tell of that.
class Start {
 public:
  Start(const RawDevice& device, uint32_t state, const std::string& stream) {
    device.Reset();
    if (state == kError) {
      WriteAttribute(device.path(), "synth/force_error", "1");
      return;
    }
    const int error = device.SetState(state, &data_fd_);
    Expect(error == 0, "to " + std::string(StateName(state)) + ": " + std::strerror(error));
    Expect(device.State() == state, "not in " + std::string(StateName(state)));
    if (state != kResuming) return;
    const ssize_t written = write(data_fd_.get(), stream.data(), stream.size());
    Expect(written == static_cast<ssize_t>(stream.size()), "the device did not take its stream");
  }

 private:
  UniqueFd data_fd_;
};

std::string Join(const std::vector<DeviceState>& steps) {
  return absl::StrJoin(steps, " ", [](std::string* text, DeviceState step) {
    absl::StrAppend(text, DeviceStateName(step));
  });
}

// The arcs' ends in the driver's log, a line "FROM TO" each.
std::string TakenSteps(const RawDevice& device) {
  std::istringstream log(ReadAttribute(device.path(), "synth/arc_log"));
  std::string from, to, text;
  while (log >> from >> to) absl::StrAppend(&text, text.empty() ? "" : " ", to);
  return text;
}

// Our table's word on the arc is not the kernel's.
class Differences {
 public:
  void Add(uint32_t from, uint32_t to, const std::string& what) {
    std::cout << "DIFFERENT: " << StateName(from) << " -> " << StateName(to) << ": " << what
              << '\n';
    ++count_;
  }
  int count() const { return count_; }

 private:
  int count_ = 0;
};

// Asked for STOP_COPY to pre-copy, for which its table has no way, VFIO's core (Linux 6.12) looks
// for the next state for ever, in the kernel, holding the driver's lock. godwit_synth answers by
// itself.
bool HangsTheKernel(const RawDevice& device, MigrationFlags flags, uint32_t from, uint32_t to) {
  const auto wanted = static_cast<DeviceState>(to);
  return !IsSynth(device) && from == kStopCopy && IsSaving(wanted) && to != kStopCopy &&
         HasState(flags, wanted);
}

// Takes one arc; returns its cell: what the walk is in our table, or an errno.
std::string TakeArc(const RawDevice& device, MigrationFlags flags, uint32_t from, uint32_t to,
                    const std::string& stream, Differences& differences) {
  if (HangsTheKernel(device, flags, from, to)) return "(hangs)";
  const Start start(device, from, stream);
  const auto walk = Walk(flags, static_cast<DeviceState>(from), static_cast<DeviceState>(to));
  const bool is_synth = IsSynth(device);
  if (is_synth) WriteAttribute(device.path(), "synth/arc_log", "0");

  UniqueFd data_fd;
  const int error = device.SetState(to, &data_fd);
  const uint32_t now = device.State();
  // The driver answers for a device in ERROR, the same state included; the core for all else.
  const bool same_error = from == kError && to == kError;
  if ((error == 0) != walk.ok() && !same_error) {
    differences.Add(
        from, to,
        error == 0 ? "the kernel did it" : absl::StrCat("the kernel says ", std::strerror(error)));
  }
  if (now != (error == 0 ? to : from)) {
    differences.Add(from, to, "the device is in " + std::string(StateName(now)));
  }
  if (error != 0) return error == EINVAL ? "EINVAL" : error == EIO ? "EIO" : std::strerror(error);

  const bool wants_fd = walk.ok() && !walk->empty() &&
                        (to == kResuming || (IsSaving(static_cast<DeviceState>(to)) &&
                                             !IsSaving(static_cast<DeviceState>(from))));
  if (data_fd.valid() != wants_fd) {
    differences.Add(from, to, data_fd.valid() ? "a stream too many" : "no stream");
  }
  const std::string steps = walk.ok() ? Join(*walk) : "?";
  if (is_synth && TakenSteps(device) != steps) {
    differences.Add(from, to,
                    "the kernel went by " + TakenSteps(device) + ", our table by " + steps);
  }
  if (!walk.ok()) return "done";
  return walk->empty() ? "-" : absl::StrCat(walk->size(), ":", DeviceStateName(walk->front()));
}

int CheckAllArcs(const RawDevice& device) {
  const uint32_t bits = device.MigrationFlags();
  const MigrationFlags flags = {.p2p = (bits & kFlagP2p) != 0,
                                .pre_copy = (bits & kFlagPreCopy) != 0};
  const std::string stream = SaveStream(device);
  Differences differences;
  int arcs = 0;

  std::cout << "\n" << MigrationFlagsName(flags) << " (steps:first step, or the kernel's error)\n";
  std::cout << std::left << std::setw(14) << "now \\ wanted";
  for (uint32_t to = 0; to < kStates; ++to) std::cout << std::setw(15) << StateName(to);
  std::cout << '\n';
  for (uint32_t from = 0; from < kStates; ++from) {
    if (!HasState(flags, static_cast<DeviceState>(from))) continue;
    if (from == kError && !IsSynth(device)) continue;  // there is no way to bring it there
    std::cout << std::setw(14) << StateName(from);
    for (uint32_t to = 0; to < kStates; ++to, ++arcs) {
      std::cout << std::setw(15) << TakeArc(device, flags, from, to, stream, differences);
    }
    std::cout << '\n';
  }
  device.Reset();
  std::cout << arcs << " arcs, " << differences.count() << " different from Godwit's table\n";
  return differences.count();
}

int Run(const std::vector<std::string>& arguments) {
  const std::string& path = arguments.front();
  if (arguments.size() == 1) return CheckAllArcs(RawDevice(path));
  int differences = 0;
  for (size_t i = 1; i < arguments.size(); ++i) {
    WriteAttribute(path, "synth/migration_flags", arguments[i]);
    differences += CheckAllArcs(RawDevice(path));
  }
  return differences;
}

}  // namespace
}  // namespace godwit::lab

int main(int argc, char** argv) try {
  if (argc < 2) {
    std::cerr << "usage: arc_table DEVICE [FLAGS…]\n";
    return 2;
  }
  return godwit::lab::Run({argv + 1, argv + argc}) == 0 ? 0 : 1;
} catch (const std::exception& error) {
  std::cerr << "arc_table: " << error.what() << '\n';
  return 1;
}
