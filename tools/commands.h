// The subcommands of godwit. Each returns an ExitCode.
#ifndef GODWIT_TOOLS_COMMANDS_H_
#define GODWIT_TOOLS_COMMANDS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "godwit/session.h"
#include "tools/exit_code.h"

namespace godwit {

// When pre-copy ends. Durations are as absl::ParseDuration() takes them.
struct PrecopyArguments {
  bool off = false;
  std::string downtime_limit = "300ms";
  std::string max_time = "60s";
  std::string max_bytes;  // "": no limit
  OnNoConvergence on_no_convergence = OnNoConvergence::kSwitch;
  std::string fixed_downtime;  // "": not known
};

struct KeygenCommand {
  std::string out;
  bool psk = false;
  std::vector<std::string> names;
};
ExitCode RunKeygen(const KeygenCommand& command);

struct LoopbackCommand {
  uint32_t devices = 2;
  std::string size = "1GiB";
  uint32_t seed = 1;
  std::string soft;  // more of each device's SPEC
  PrecopyArguments precopy;
  TransportKind transport = TransportKind::kTcp;
  uint32_t lanes = 4;
  std::string packet_bytes = "1MiB";
  bool crc = true;
  std::string trace;  // the source's; the target's is that name with ".target" behind it
  std::string json;
};
ExitCode RunLoopback(const LoopbackCommand& command);

struct SendCommand {
  std::string to;
  TrustOptions trust;
  std::vector<std::string> devices;
  TransportKind transport = TransportKind::kAuto;
  std::string rdma_device;
  uint32_t spin_us = 0;
  uint32_t lanes = 4;
  std::string packet_bytes = "1MiB";
  bool crc = true;
  PrecopyArguments precopy;
  std::string reconnect_timeout = "30s";
  std::string resolve_timeout = "60s";
  std::string trace;
  std::string metrics;
  std::string json;
};
ExitCode RunSend(const SendCommand& command);

struct ReceiveCommand {
  std::string listen;
  TrustOptions trust;
  std::string rdma_device;
  uint32_t spin_us = 0;
  std::vector<std::string> devices;
  std::vector<std::string> checks;
  TransportKind transport = TransportKind::kAuto;
  // The most that it accepts.
  uint32_t lanes = 64;
  std::string packet_bytes = "8388528";
  bool crc = true;
  std::string commit_timeout = "10s";
  std::string outcome_hold = "90s";
  std::string trace;
  std::string metrics;
  std::string json;
  int port_fd = -1;  // the port number goes here once the command listens
};
ExitCode RunReceive(const ReceiveCommand& command);

struct SaveCommand {
  std::string out;
  std::vector<std::string> devices;
  bool force = false;
  bool stop = false;
  std::string packet_bytes = "1MiB";
  std::string json;
};
ExitCode RunSave(const SaveCommand& command);

struct LoadCommand {
  std::string in;
  std::vector<std::string> devices;
  std::vector<std::string> checks;
  std::string json;
};
ExitCode RunLoad(const LoadCommand& command);

struct InspectCommand {
  std::string file;
  std::string as;        // "": find out
  bool records = false;  // of the streams inside a capture
  std::string json;
};
ExitCode RunInspect(const InspectCommand& command);

struct PingCommand {
  std::string to;
  TrustOptions trust;
  TransportKind transport = TransportKind::kAuto;
  std::string rdma_device;
  uint32_t lanes = 4;
  std::string packet_bytes = "1MiB";
  std::string time = "1s";
  std::string json;
};
ExitCode RunPing(const PingCommand& command);

struct DevicesCommand {
  std::string json;
};
ExitCode RunDevices(const DevicesCommand& command);

struct DoctorCommand {
  std::string json;
};
ExitCode RunDoctor(const DoctorCommand& command);

}  // namespace godwit

#endif  // GODWIT_TOOLS_COMMANDS_H_
